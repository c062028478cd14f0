"""`python -m monitoring report | exporter | decide | canary | import-past | erase | retain | dashboards`.

The store's URL comes from NEWFOUND_STORE, the key of the users' hashes from NEWFOUND_USER_KEY.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monitoring.settings import STORE, MonitoringConfig, secret_key
from monitoring.store.database import Store
from newfound.config import load_settings
from newfound.errors import NewfoundError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What was shown, what came of it, whether novelty drifts, and what to do about it.",
)
console = Console(highlight=False)
_UNITS = {"h": 3600, "d": 86_400}

Out = Annotated[Path, typer.Option(help="Folder of exports, pages and the Evidently workspace.")]
Config = Annotated[Path | None, typer.Option("--config", help="Monitoring YAML; defaults where absent.")]
Releases = Annotated[str | None, typer.Option("--releases", help="Folder or URL of all releases.")]
Cache = Annotated[Path | None, typer.Option(help="Local folder for releases of a remote root.")]
OUT = Path("runs/monitoring")


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([hd])", text)
    if not found or found.group(1) == "0":
        raise typer.BadParameter(f"{text!r}: expected a number of hours or days, such as 6h or 1d")
    return timedelta(seconds=int(found.group(1)) * _UNITS[found.group(2)])


def _moment(text: str | None, window: timedelta) -> datetime:
    """The given moment, or the end of the last whole window."""
    if text is None:
        seconds = window.total_seconds()
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() // seconds * seconds, UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected an ISO time, such as 2026-03-01T00:00:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _store() -> Store:
    url = os.environ.get(STORE, f"sqlite:///{OUT}/events.db")
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return Store(url, secret_key(os.environ))


@app.command("report")
def report_command(
    window: Annotated[str, typer.Option(help="Length of the window: 6h, 1d.")] = "1d",
    reference: Annotated[str, typer.Option(help="Length of the time before it that it is held against.")] = "7d",
    until: Annotated[str | None, typer.Option(help="End of the window; the last whole one by default.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="So many windows, the last ending at --until.")] = 1,
    out: Out = OUT,
    config: Config = None,
    releases: Releases = None,
    cache: Cache = None,
    fail: Annotated[bool, typer.Option(help="Exit with status 1 where a bound of the last window is broken.")] = False,
) -> None:
    """Measures windows, tests them, writes pages, the workspace and the measures that the exporter shows."""
    from monitoring.report.job import report

    length, store, settings = _span(window), _store(), load_settings(MonitoringConfig, config)
    end = _moment(until, length)
    found = None
    for back in reversed(range(windows)):
        stop = end - back * length
        found = report(store, out, stop, length, _span(reference), settings, root=releases, cache=cache)
        table = Table("measure", "value", title=f"{found.start:%Y-%m-%d %H:%M} to {found.stop:%Y-%m-%d %H:%M} UTC")
        for name, value in found.measures.items():
            if not name.startswith("reason_share."):
                table.add_row(escape(name), "-" if value is None else f"{value:.4g}")
        if back == 0:
            console.print(table)
        for check in found.checks:
            mark = "[green]holds[/]" if check.passed else "[bold red]broken[/]"
            console.print(f"{found.stop:%Y-%m-%d %H:%M} {mark} {escape(str(check))}")
    console.print(
        f"pages in {escape(str(out / 'reports'))}; `evidently ui --workspace {escape(str(out / 'workspace'))}`"
    )
    if fail and found is not None and found.failed:
        raise typer.Exit(1)


@app.command("exporter")
def exporter_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8091,
    releases: Releases = None,
) -> None:
    """Serves the last windows' measures to Prometheus."""
    from monitoring.exporter import serve

    serve(_store(), host, port, releases)


@app.command("decide")
def decide_command(
    window: Annotated[str, typer.Option(help="Length of the windows to look at.")] = "1d",
    config: Config = None,
    submit: Annotated[
        str | None, typer.Option(help="`local`, or the URL of Kubeflow Pipelines; else a dry run.")
    ] = None,
    pipeline_config: Annotated[Path, typer.Option(help="Configuration of the pipelines.")] = Path(
        "pipelines/configs/local.yaml"
    ),
    interactions: Annotated[
        str, typer.Option(help="File or URL to write what everybody did to, for the pipeline.")
    ] = str(OUT / "interactions.parquet"),
    items: Annotated[
        str | None, typer.Option(help="File or URL of the catalogue, for fine-tuning and new clusters.")
    ] = None,
    releases: Annotated[str, typer.Option("--releases", help="Folder or URL of all releases.")] = "releases",
) -> None:
    """Says which pipeline is due and why; with --submit, starts it."""
    from monitoring.retraining.decide import decide, remember
    from monitoring.retraining.submit import submit as start

    store, settings, now = _store(), load_settings(MonitoringConfig, config), datetime.now(UTC)
    decision = decide(store, _span(window), settings, now)
    console.print(f"[bold]{decision.action or 'nothing'}[/] is due: {escape(decision.reason)}")
    if decision.action is None:
        return
    if submit is None:
        remember(store, decision, now, submitted=False)
        console.print("dry run; --submit local, or --submit URL, starts it")
        return
    # Remembered before it runs: a run that fails must not be started again and again.
    from monitoring.users.interactions import write_interactions

    write_interactions(store, settings, interactions)  # what everybody did lately is what the pipeline learns from
    remember(store, decision, now, submitted=True, run=submit)
    given = {"config": pipeline_config, "releases": releases, "interactions": interactions, "items": items}
    console.print(escape(start(decision, to=submit, **given)))


@app.command("canary")
def canary_command(
    canary: Annotated[str, typer.Argument(help="Id of the canary release.")],
    window: Annotated[str, typer.Option(help="Time to compare over, ending now.")] = "1d",
    out: Out = OUT,
    config: Config = None,
    releases: Annotated[str, typer.Option("--releases", help="Folder or URL of all releases.")] = "releases",
    cache: Cache = None,
    act: Annotated[bool, typer.Option(help="Promote or roll back; else only say so.")] = False,
    submit: Annotated[
        str | None, typer.Option(help="URL of Kubeflow Pipelines: interests are written for what serves then.")
    ] = None,
    pipeline_config: Annotated[Path, typer.Option(help="Configuration of the pipelines.")] = Path(
        "pipelines/configs/production.yaml"
    ),
) -> None:
    """Judges a canary against the other releases that served beside it."""
    from monitoring.report.export import export
    from monitoring.report.windows import measure
    from monitoring.retraining.canary import judge
    from newfound.release import store as release

    store, settings, now = _store(), load_settings(MonitoringConfig, config), datetime.now(UTC)
    export(store, out / "exports")
    found = measure(out / "exports", now - _span(window), now, settings).measures
    stable = release.current(releases)
    if stable == canary:  # it is promoted already: held against the one before
        made = [manifest.id for manifest in release.list_releases(releases)]
        earlier = made[: made.index(canary)]
        stable = earlier[-1] if earlier else None
    verdict = judge(found.get(canary, {}), found.get(stable or "", {}), settings)
    console.print(f"[bold]{verdict.action}[/]: {escape(verdict.reason)}")
    if act and verdict.action == "promote" and release.current(releases) != canary:
        release.rollback(releases, canary, cache)  # verifies, then swaps the pointer: to a newer release as to an older
        console.print(f"current is now {canary}")
    elif act and verdict.action == "rollback" and release.current(releases) == canary and stable is not None:
        release.rollback(releases, stable, cache)
        console.print(f"current is {stable} again")
    else:
        return
    if submit is not None:
        from monitoring.retraining.submit import submit_interests

        console.print(submit_interests(submit, pipeline_config, releases))


@app.command("rehearse")
def rehearse_command(
    releases: Annotated[Path, typer.Option("--releases", help="Folder of all releases.")] = Path("releases"),
    dataset: Annotated[Path, typer.Option(help="What the release was trained on.")] = Path("runs/local/dataset"),
    features: Annotated[Path, typer.Option(help="Its feature store; a copy is used.")] = Path("runs/local/features"),
    out: Annotated[Path, typer.Option(help="Folder that is made anew.")] = Path("runs/monitor"),
    config: Config = None,
    days: Annotated[int, typer.Option(min=2, help="Simulated days; tastes drift half-way.")] = 7,
    users: Annotated[int, typer.Option(min=1, help="Clients active on a day.")] = 60,
    port: Annotated[int, typer.Option(help="Of Evidently's pages; 0 does not open them.")] = 8000,
) -> None:
    """Days of simulated clients through the real services, a drift half-way; then Evidently's pages on them."""
    from monitoring.rehearsal.monitor import rehearse

    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    settings = load_settings(MonitoringConfig, config)
    found = rehearse(
        releases, dataset, features, out, midnight, settings, days=days, drift_after=(days + 1) // 2, users_a_day=users
    )
    shown = ("impressions", "novelty_ratio", "novel_positive_rate", "familiar_positive_rate", "ueuc", "drift_share")
    table = Table("day", *(name.replace("_", " ") for name in shown), "broken bounds")
    for one in found:
        values = [one.measures.get(name) for name in shown]
        broken = ", ".join(check.name.replace("_", " ") for check in one.failed)
        cells = ["-" if v is None else f"{v:.0f}" if v >= 100 else f"{v:.3g}" for v in values]
        table.add_row(f"{one.start:%m-%d}", *cells, broken)
    console.print(table)
    workspace = out / "workspace"
    if port:
        console.print(f"Evidently: http://127.0.0.1:{port} (ends with Ctrl-C)")
        evidently = str(Path(sys.executable).with_name("evidently"))
        command = [evidently, "ui", "--workspace", str(workspace), "--port", str(port), "--host", "127.0.0.1"]
        os.execve(evidently, command, {**os.environ, "DO_NOT_TRACK": "1"})


@app.command("interactions")
def interactions_command(
    out: Annotated[str, typer.Argument(help="Parquet file or URL to write.")] = str(OUT / "interactions.parquet"),
    config: Config = None,
) -> None:
    """Writes what everybody ever did, the past and the feedback since, as input for the pipelines."""
    from monitoring.users.interactions import write_interactions

    count = write_interactions(_store(), load_settings(MonitoringConfig, config), out)
    console.print(f"{count} interactions in {escape(str(out))}")


@app.command("import-past")
def import_past_command(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset that the first release was trained on.")],
) -> None:
    """Copies what users did before the collector was there, so that histories are rebuilt whole."""
    from monitoring.users.interactions import pasts_of

    store = _store()
    console.print(f"{store.put_pasts(pasts_of(dataset))} users")


@app.command("erase")
def erase_command(
    user: Annotated[str, typer.Option(help="The user's id.")],
    out: Out = OUT,
    features: Annotated[Path | None, typer.Option(help="Feature repository; the online rows go as well.")] = None,
    sources: Annotated[Path | None, typer.Option(help="Folder of Feast's source files.")] = None,
    spool: Annotated[list[Path] | None, typer.Option(help="Folder of a sender's spool; may be repeated.")] = None,
) -> None:
    """Removes a user from the store, the exports, what was written for the pipelines, Feast and spools."""
    from monitoring.collector.pusher import FeastFeatures
    from monitoring.users.erase import erase

    removed = erase(
        _store(),
        user,
        datetime.now(UTC),
        exports=out / "exports",
        interactions=out / "interactions.parquet",
        features=FeastFeatures(features) if features else None,
        sources=sources,
        spools=spool or [],
    )
    for place, count in removed.items():
        console.print(f"{place}: {count} removed")


@app.command("retain")
def retain_command(out: Out = OUT, config: Config = None) -> None:
    """Removes events older than the configured retention."""
    from monitoring.users.erase import retain

    settings = load_settings(MonitoringConfig, config)
    for place, count in retain(_store(), settings.retention_days, datetime.now(UTC), out / "exports").items():
        console.print(f"{place}: {count} removed")


@app.command("dashboards")
def dashboards_command() -> None:
    """Writes the Grafana dashboards' JSON beside their code."""
    from monitoring.dashboards.boards import write

    for path in write():
        console.print(f"{path} written")


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("newfound").setLevel(logging.INFO)
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
