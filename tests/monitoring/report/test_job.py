"""A window's report: tested, kept, shown; twice is once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from monitoring.__main__ import app
from monitoring.report.evidently import DASHBOARDS
from monitoring.store.database import Store
from monitoring.store.tables import measures
from newfound.events import FeedbackEvent, SlotEvent
from newfound.simulation import Drift, Population, Shown
from tests.monitoring import servers as parts

STOP = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
CLUSTERS = [f"c{n}" for n in range(12)]


def _days(store: Store) -> None:
    """Three days of 40 clients; before the third, what they would like is replaced."""
    people = Population({f"u{n}": [f"c{n % 4}"] for n in range(40)}, CLUSTERS, seed=5, latent=4)
    wanted = {user: list(clusters) for user, clusters in people.latent.items()}
    for day in range(3):
        if day == 2:
            people.drift(Drift(share=1.0))
        for number, user in enumerate(people.users):
            at = STOP - timedelta(days=3 - day) + timedelta(minutes=number)
            chosen = [*((c, "novel") for c in wanted[user]), *[(f"c{number % 4}", "familiar")] * 6]
            slots = tuple(
                SlotEvent(
                    position=place,
                    item=f"{cluster}.{place}",
                    cluster=cluster,
                    kind=kind,  # type: ignore[arg-type]
                    propensity=0.5,
                    reason="table" if kind == "novel" else "familiar",
                    score=1.0 + place,
                )
                for place, (cluster, kind) in enumerate(chosen)
            )
            slate = parts.recommendation(f"{day}-{user}", user_id=user, at=at, slots=slots, history_length=20 + number)
            done = people.respond(user, slate.id, [Shown(s.position, s.item, s.cluster) for s in slots])
            store.write(
                [slate]
                + [
                    FeedbackEvent(
                        id=f"{slate.id}-{place}",
                        at=at + timedelta(seconds=one.delay),
                        recommendation_id=slate.id,
                        user_id=user,
                        item=one.item,
                        kind=one.kind,  # type: ignore[arg-type]
                        share=one.share,
                    )
                    for place, one in enumerate(done)
                ]
            )


def test_a_drift_fails_its_test_and_twice_is_once(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWFOUND_STORE", sqlite_url)
    monkeypatch.setenv("NEWFOUND_USER_KEY", parts.SECRET)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    store = Store(sqlite_url, parts.SECRET.encode())
    _days(store)
    out = tmp_path / "out"

    def run() -> tuple[str, int, list[object], set[str], int]:
        arguments = ["report", "--windows", "2", "--reference", "1d", "--out", str(out), "--until", STOP.isoformat()]
        done = CliRunner().invoke(app, [*arguments, "--fail"])
        with store.engine.connect() as connection:
            kept = [tuple(row) for row in connection.execute(select(measures).order_by(*measures.primary_key))]
        files = {path.relative_to(out).as_posix() for path in out.rglob("*.html")}
        runs = json.loads((out / "workspace" / "newfound-runs.json").read_text())
        from evidently.ui.workspace import Workspace

        workspace = Workspace.create(str(out / "workspace"))
        listed = sum(len(workspace.list_runs(project.id)) for project in workspace.list_projects())
        assert listed == sum(len(of_window) for of_window in runs.values())
        return done.output, done.exit_code, kept, files, listed

    output, code, kept, files, listed = run()
    assert code == 1 and re.search(r"broken\s+novel_positive_rate", output), output
    name = f"{STOP - timedelta(days=1):%Y%m%dT%H%M}-{STOP:%Y%m%dT%H%M}"
    assert {f"reports/{name}.html", f"reports/{name}-drift.html"} <= files
    shown = (out / "reports" / f"{name}.html").read_text()
    assert "BROKEN" in shown and "overflow-x:auto" in shown
    assert any(row[3] == "passed.novel_positive_rate" and row[4] == 0.0 for row in kept)  # type: ignore[index]
    again = run()
    assert again[2:] == (kept, files, listed)

    from evidently.ui.workspace import Workspace

    projects = {project.name: project for project in Workspace.create(str(out / "workspace")).list_projects()}
    assert set(projects) == set(DASHBOARDS)
    for title, panels in DASHBOARDS.items():
        shown = projects[title].dashboard.model().panels
        assert [panel.title for panel in shown] == [panel.title for panel in panels]
        assert all(value.metric == "evidently:metric_v2:MeanValue" for panel in shown for value in panel.values)
    store.close()
