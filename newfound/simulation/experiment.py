"""The experiment: every arm in every world with every seed, resumable, and what is concluded from it.

A run is one arm in one world with one seed. Arms of a world and seed meet the same people and the same chance, so
their differences are paired; intervals are over seeds (Student's t), since people of one world learn from one another's
log and are no independent witnesses.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newfound.settings import Settings
from newfound.simulation.arms import SIMPLE, Arm, Knowledge, Oracle, RandomNovel
from newfound.simulation.closed_loop import Loop, LoopConfig, Outcome, first_journal
from newfound.simulation.joint_arm import FOLD, JointDecision, choice_table, fit_choice_model
from newfound.simulation.language import fit_language_planner, whitened
from newfound.simulation.learning_arms import ClusterSequence, HierarchicalBandit, NeuralLinearBandit
from newfound.simulation.world import World
from newfound.simulation.world_config import WorldConfig
from newfound.types import Floats

BASELINE = "ranker"
PLANTED = ("random_again", "oracle_quarter")
"""Arms that check the instrument: random novel with other chance, and one that knows the truth a quarter of times."""

MAKERS: Mapping[str, Callable[[Knowledge], Arm]] = {
    **SIMPLE,
    "cluster_sequence": lambda knowledge: ClusterSequence(),
    "hcb": HierarchicalBandit,
    "neural_linear": lambda knowledge: NeuralLinearBandit(),
    "newfound_by_choices": lambda knowledge: JointDecision(knowledge, knowledge.language, "choices"),
    "newfound_without_planner": lambda knowledge: JointDecision(knowledge, None),
    "newfound_teacher": lambda knowledge: JointDecision(knowledge, knowledge.teacher),
    "newfound": lambda knowledge: JointDecision(knowledge, knowledge.language),
}


class ExperimentConfig(Settings):
    """Worlds, seeds and schedule.

    Attributes:
        worlds: by name.
        seeds: of each world.
        loop: the schedule.
        arms: names; empty: all.
        expected_to_win: worlds in which newfound is expected to win; elsewhere it should not.
    """

    worlds: dict[str, WorldConfig]
    seeds: list[int]
    loop: LoopConfig = LoopConfig()
    arms: list[str] = []
    expected_to_win: list[str] = []

    @property
    def every_arm(self) -> list[str]:
        """Names of the arms, those that check the instrument among them."""
        return self.arms or [*MAKERS, *PLANTED]

    @property
    def digest(self) -> str:
        """Of worlds, seeds and schedule: results of another configuration are never taken up."""
        told = self.model_dump(exclude={"arms", "expected_to_win", "seeds"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def make_knowledge(world: World, states: Floats, seed: int) -> Knowledge:
    """Knowledge of a world for the arms: the planner and its teacher are trained here, once, on the same people's log.

    Args:
        states: [C, dim], a language model's of the descriptions.
    """
    journal = first_journal(world)
    learners = np.arange(journal.people) % FOLD != 0
    vectors = whitened(states)
    teacher = choice_table(fit_choice_model(journal, journal.choices(), learners, vectors, seed))
    language = fit_language_planner(journal, states, learners, seed)
    themes = np.arange(world.config.clusters) // world.config.facets
    return Knowledge(vectors, themes, language, teacher)


def run(
    config: ExperimentConfig, states: Floats, log: Path, progress: Callable[[str], None] = lambda text: None
) -> list[dict[str, Any]]:
    """Runs what `log` does not hold yet and returns all rows.

    Args:
        config: worlds, seeds, arms.
        states: [C, dim], a language model's of the descriptions; worlds have C interests.
        log: JSON lines, one a run; a torn last line is run again.
        progress: told of each run.
    """
    rows = {key: row for key, row in _read(log) if key[0] == config.digest}
    wanted = [(world, seed, arm) for world in config.worlds for seed in config.seeds for arm in config.every_arm]
    log.parent.mkdir(parents=True, exist_ok=True)
    torn = log.is_file() and not log.read_bytes().endswith(b"\n")
    with log.open("a", encoding="utf-8") as file:
        if torn:
            file.write("\n")
        for at, (name, seed, group) in enumerate(_groups(config), start=1):
            missing = [arm for arm in group if (config.digest, name, seed, arm) not in rows]
            if missing:
                start = World(config.worlds[name], seed)
                knowledge = make_knowledge(copy.deepcopy(start), states, seed)
                journal = first_journal(start)
            for arm in missing:
                outcome = run_arm(arm, copy.deepcopy(start), copy.deepcopy(journal), knowledge, config.loop, seed)
                row = {"digest": config.digest, "world": name, "seed": seed, "arm": arm, **_summary(outcome)}
                file.write(json.dumps(row) + "\n")
                file.flush()
                rows[config.digest, name, seed, arm] = row
                progress(f"{name} seed {seed} {arm}: {len(rows)} of {len(wanted)}")
            progress(f"world and seed {at} of {len(config.worlds) * len(config.seeds)}")
    return [rows[config.digest, *key] for key in wanted]


def _groups(config: ExperimentConfig) -> Iterator[tuple[str, int, list[str]]]:
    for seed in config.seeds:
        for name in config.worlds:
            yield name, seed, config.every_arm


def run_arm(name: str, world: World, journal: Any, knowledge: Knowledge, loop: LoopConfig, seed: int) -> Outcome:
    """One arm in one world. `random_again` has other chance of its own than `random_novel`, the rest share a seed."""
    arm: Arm
    if name == "random_again":
        return Loop(world, journal, RandomNovel(), loop, seed + 1_000_003).run()
    arm = Oracle(world.likings, 0.25) if name == "oracle_quarter" else MAKERS[name](knowledge)
    return Loop(world, journal, arm, loop, seed).run()


def _summary(outcome: Outcome) -> dict[str, Any]:
    measures = {name: float(values.mean()) for name, values in outcome.people.items()} | outcome.totals
    return {
        "measures": {name: round(value, 6) for name, value in measures.items()},
        "daily": {name: [round(value, 4) for value in values] for name, values in outcome.daily.items()},
    }


def _read(log: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # torn by a stop
        yield (row["digest"], row["world"], row["seed"], row["arm"]), row


# --- what is concluded ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lift:
    """A paired difference of two arms, with its interval over seeds."""

    value: float
    lower: float
    upper: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.lower > 0 or self.upper < 0


def paired(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Lift:
    """Mean of the differences with Student's interval; without bounds for a single pair.

    >>> paired([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    Lift(value=0.5, lower=0.5, upper=0.5)
    """
    from scipy.stats import t

    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    count = len(differences)
    value = float(differences.mean())
    if count < 2:
        return Lift(value, math.nan, math.nan)
    reach = float(t.ppf(0.5 + confidence / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    return Lift(value, value - reach, value + reach)


def lifts(rows: Sequence[Mapping[str, Any]], over: str = BASELINE) -> dict[tuple[str, str, str], Lift]:
    """By world, arm and measure: the lift over an arm.

    Args:
        rows: as `run` returns them.
        over: the arm to compare with.
    """
    by: dict[tuple[str, str], dict[int, Mapping[str, float]]] = {}
    for row in rows:
        by.setdefault((row["world"], row["arm"]), {})[row["seed"]] = row["measures"]
    found = {}
    for (world, arm), ours in by.items():
        theirs = by.get((world, over), {})
        seeds = sorted(ours.keys() & theirs.keys())
        if arm == over or not seeds:
            continue
        for measure in ours[seeds[0]]:
            pairs = [ours[seed][measure] for seed in seeds], [theirs[seed][measure] for seed in seeds]
            found[world, arm, measure] = paired(*pairs)
    return found
