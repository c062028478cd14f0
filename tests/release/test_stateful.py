"""Releases and the takedown list as a machine: in whatever order things are done, readers see what was acknowledged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from newfound.errors import ReleaseError
from newfound.release import store
from newfound.release.pointer import read_pointer
from newfound.release.storage import Storage
from newfound.release.takedown import Takedown, change_takedown, read_takedown
from tests.release.gates import HELD

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


class Releases(RuleBasedStateMachine):
    """What is published, promoted, rolled back, damaged and taken down, beside what it should come to."""

    made = Bundle("made")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="newfound-releases-", dir=MEMORY))
        self.root = str(self.folder / "releases")
        self.current: str | None = None
        self.fallback: str | None = None  # what `current.previous` should hold
        self.held = False
        self.fallback_held = False
        self.moves = 0
        self.damaged: set[str] = set()
        self.taken: Takedown | None = None  # None: there is no list
        self.count = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _publish(self, *, promote: bool = True, expect: str | None = store.AS_IT_IS) -> str:
        self.count += 1
        part = self.folder / "part.txt"
        part.write_text(str(self.count))
        lineage = {"count": self.count}
        given = {"part.txt": part}
        made = store.publish(
            given, self.root, lineage=lineage, measures={}, fits={}, gates=HELD, promote=promote, expect=expect
        )
        return made.id

    def _moved(self, to: str, held: bool) -> None:
        first = self.current is None
        self.fallback, self.fallback_held = (to, held) if held or first else (self.current, self.held)
        self.current, self.held = to, held
        self.moves += 1

    @rule(target=made, promote=st.booleans())
    def publish(self, promote: bool) -> str:
        if self.current is None and self.taken is None:
            self.taken = Takedown()
        one = self._publish(promote=promote)
        if promote and not self.held:
            self._moved(one, False)
        return one

    @rule(expect=made)
    def publish_late(self, expect: str) -> None:
        if expect == self.current:
            return
        with pytest.raises(ReleaseError, match="left as it is"):
            self._publish(expect=expect)

    @rule(to=made)
    def roll_back(self, to: str) -> None:
        if to in self.damaged:
            with pytest.raises(ReleaseError):
                store.rollback(self.root, to)
        else:
            store.rollback(self.root, to)
            self._moved(to, True)

    @rule(to=made, by_hand=st.booleans())
    def promote(self, to: str, by_hand: bool) -> None:
        if to in self.damaged or (self.held and not by_hand):
            with pytest.raises(ReleaseError):
                store.promote(self.root, to, even_if_held=by_hand)
        else:
            store.promote(self.root, to, even_if_held=by_hand)
            self._moved(to, False)

    @rule(one=made)
    def damage_a_release(self, one: str) -> None:
        (Path(self.root) / one / "part.txt").write_text("damaged")
        self.damaged.add(one)

    @precondition(lambda self: self.fallback is not None)
    @rule(harm=st.sampled_from(["", "{", '{"release": "../x"}']))
    def damage_the_pointer(self, harm: str) -> None:
        (Path(self.root) / "current").write_text(harm)
        self.current, self.held = self.fallback, self.fallback_held
        pointer = read_pointer(Storage(self.root))
        assert pointer is not None
        self.moves = pointer.move

    @rule(items=st.frozensets(st.sampled_from("abc")), add=st.booleans())
    def take_down(self, items: frozenset[str], add: bool) -> None:
        def change(old: Takedown) -> Takedown:
            return Takedown(old.items | items if add else old.items - items, old.clusters)

        if self.taken is None:
            with pytest.raises(ReleaseError):
                change_takedown(self.root, change)
        else:
            self.taken = change(self.taken)
            assert change_takedown(self.root, change) == self.taken

    @precondition(lambda self: self.taken is not None and self.current is not None)
    @rule()
    def lose_the_list(self) -> None:
        (Path(self.root) / "takedown.json").unlink()
        self.taken = None

    @invariant()
    def readers_see_what_was_acknowledged(self) -> None:
        assert store.current(self.root) == self.current
        if self.current is not None:
            pointer = read_pointer(Storage(self.root))
            assert pointer is not None and (pointer.held, pointer.move) == (self.held, self.moves)
            if self.current not in self.damaged:
                assert store.load(self.root).id == self.current

    @invariant()
    def nobody_takes_a_missing_list_for_an_empty_one(self) -> None:
        if self.taken is None:
            with pytest.raises(ReleaseError):
                read_takedown(self.root)
        else:
            assert read_takedown(self.root) == self.taken


TestReleases = Releases.TestCase
TestReleases.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
