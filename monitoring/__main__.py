"""The command line of monitoring: `python -m monitoring --help` lists the commands.

The store's URL comes from NEWFOUND_STORE, the key of the users' hashes from NEWFOUND_USER_KEY.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from monitoring.console import OUT, console, moment, open_store, print_days, print_outcomes, print_report, span
from monitoring.settings import MonitoringConfig
from newfound.errors import NewfoundError
from newfound.service.signals import exit_on_sigterm
from newfound.settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reports on what was shown and what came of it, retraining decisions, people's data.",
)
PIPELINES = Path("pipelines/configs")

Out = Annotated[Path, typer.Option(help="Folder of exports, pages and the Evidently workspace.")]
Config = Annotated[Path | None, typer.Option("--config", help="Monitoring YAML; defaults where absent.")]
Releases = Annotated[str, typer.Option("--releases", help="Folder or URL of all releases.")]
Cache = Annotated[Path | None, typer.Option(help="Local folder for releases of a remote root.")]
PipelineConfig = Annotated[Path, typer.Option(help="Configuration of the pipelines.")]
Platform = Annotated[
    Path | None,
    typer.Option(help="The cluster that pipelines are submitted to; production's in the repository if absent."),
]


@app.command("report")
def report_command(
    window: Annotated[str, typer.Option(help="Length of the window: 6h, 1d.")] = "1d",
    reference: Annotated[str, typer.Option(help="Length of the time before it that it is held against.")] = "7d",
    until: Annotated[str | None, typer.Option(help="End of the window; the last whole one by default.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="So many windows, the last ending at --until.")] = 1,
    out: Out = OUT,
    config: Config = None,
    releases: Annotated[str | None, typer.Option("--releases", help="Folder or URL of all releases.")] = None,
    cache: Cache = None,
    fail: Annotated[bool, typer.Option(help="Exit with status 1 where a bound of the last window is broken.")] = False,
) -> None:
    """Measures windows, tests them, writes pages, the workspace and the measures that the exporter shows."""
    length, before = span(window), span(reference)
    end = moment(until, length)
    from monitoring.report.job import report_window  # seconds of imports: after what can be refused

    store, settings = open_store(), load_settings(MonitoringConfig, config)
    for back in reversed(range(windows)):
        stop = end - back * length
        report = report_window(store, out, stop, length, before, settings, root=releases, cache=cache)
        print_report(report, measures=back == 0)
    console.print(
        f"pages in {escape(str(out / 'reports'))}; `evidently ui --workspace {escape(str(out / 'workspace'))}`"
    )
    if fail and report.failed:
        raise typer.Exit(1)


@app.command("exporter")
def exporter_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8091,
    releases: Annotated[str | None, typer.Option("--releases", help="Folder or URL of all releases.")] = None,
) -> None:
    """Serves the last windows' measures to Prometheus."""
    from monitoring.exporter import serve

    serve(open_store(), host, port, releases)


@app.command("decide")
def decide_command(
    window: Annotated[str, typer.Option(help="Length of the windows to look at.")] = "1d",
    config: Config = None,
    submit: Annotated[
        str | None, typer.Option(help="`local`, or the URL of Kubeflow Pipelines; else a dry run.")
    ] = None,
    pipeline_config: PipelineConfig = PIPELINES / "local.yaml",
    interactions: Annotated[
        str, typer.Option(help="File or URL to write what everybody did to, for the pipeline.")
    ] = str(OUT / "interactions.parquet"),
    items: Annotated[
        str | None, typer.Option(help="File or URL of the catalogue, for fine-tuning and new clusters.")
    ] = None,
    releases: Releases = "releases",
    platform: Platform = None,
) -> None:
    """Says which pipeline is due and why; with --submit, starts it."""
    from monitoring.retraining.decide import decide, remember
    from monitoring.retraining.submit import submit_due

    store, settings, now = open_store(), load_settings(MonitoringConfig, config), datetime.now(UTC)
    decision = decide(store, span(window), settings, now)
    console.print(f"[bold]{decision.action or 'nothing'}[/] is due: {escape(decision.reason)}")
    if decision.action is None:
        return
    if submit is None:
        remember(store, decision, now, submitted=False)
        console.print("dry run; --submit local, or --submit URL, starts it")
        return
    given = {"config": pipeline_config, "releases": releases, "interactions": interactions, "items": items}
    place = () if platform is None or submit == "local" else ("--platform", str(platform))
    console.print(escape(submit_due(store, decision, settings, now, to=submit, extra=place, **given)))


@app.command("canary")
def canary_command(
    canary: Annotated[str, typer.Argument(help="Id of the canary release.")],
    window: Annotated[str, typer.Option(help="Time to compare over, ending now.")] = "1d",
    out: Out = OUT,
    config: Config = None,
    releases: Releases = "releases",
    cache: Cache = None,
    act: Annotated[bool, typer.Option("--act/--no-act", help="Promote or roll back; else only say so.")] = False,
    submit: Annotated[
        str | None, typer.Option(help="URL of Kubeflow Pipelines: interests are written for what serves then.")
    ] = None,
    pipeline_config: PipelineConfig = PIPELINES / "production.yaml",
    platform: Platform = None,
) -> None:
    """Compares a canary with the other releases that served beside it."""
    from monitoring.retraining import canary as comparison
    from monitoring.retraining.submit import submit_interests

    store, settings, now = open_store(), load_settings(MonitoringConfig, config), datetime.now(UTC)
    verdict, stable = comparison.compare_releases(store, out / "exports", canary, releases, span(window), settings, now)
    console.print(f"[bold]{verdict.action}[/]: {escape(verdict.reason)}")
    current = comparison.act(verdict, canary, stable, releases, cache) if act else None
    if current is None:
        return
    console.print(f"current is now {current}" if current == canary else f"current is {current} again")
    if submit is not None:
        console.print(submit_interests(submit, pipeline_config, releases, platform))


@app.command("watch-canary")
def watch_canary_command(
    namespace: Annotated[str, typer.Option(help="Of the gateway's route.")] = "newfound",
    roll_back: Annotated[
        bool, typer.Option("--roll-back/--no-roll-back", help="Take the traffic from a canary that is worse.")
    ] = False,
    config: Config = None,
    releases: Releases = "releases",
) -> None:
    """Judges the canary that has traffic; for a schedule."""
    from monitoring.retraining.traffic import Gateway
    from monitoring.retraining.watch import watch

    store, settings, now = open_store(), load_settings(MonitoringConfig, config), datetime.now(UTC)
    judged = watch(store, releases, settings, now, Gateway(namespace), roll_back=roll_back)
    if judged is None:
        console.print("no canary has traffic")
        return
    console.print(f"[bold]{judged.verdict.action}[/]: {judged.release}: {escape(judged.verdict.reason)}")
    if judged.rolled_back:
        console.print("all traffic is the pair's that serves")


@app.command("simulate-traffic")
def simulate_traffic_command(
    releases: Annotated[Path, typer.Option("--releases", help="Folder of all releases.")] = Path("releases"),
    dataset: Annotated[Path, typer.Option(help="What the release was trained on.")] = Path("runs/local/dataset"),
    features: Annotated[Path, typer.Option(help="Its feature store; a copy is used.")] = Path("runs/local/features"),
    out: Annotated[Path, typer.Option(help="Folder that is made anew.")] = Path("runs/traffic"),
    days: Annotated[int, typer.Option(min=1, help="Simulated days.")] = 3,
    users: Annotated[int, typer.Option(min=1, help="Clients active on a day.")] = 60,
) -> None:
    """Days of simulated clients through the real services: requests over HTTP, then feedback on what they got."""
    from monitoring.rehearsal.monitor import simulate

    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for _, _, day in simulate(releases, dataset, features, out, midnight, days=days, users_a_day=users):
        console.print(f"{day.start:%Y-%m-%d}: {day.slates} slates, {day.feedback} feedback events")


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
    drift_after = (days + 1) // 2
    reports = rehearse(
        releases, dataset, features, out, midnight, settings, days=days, drift_after=drift_after, users_a_day=users
    )
    print_days(reports)
    if port:
        console.print(f"Evidently: http://127.0.0.1:{port} (ends with Ctrl-C)")
        evidently = str(Path(sys.executable).with_name("evidently"))
        command = [evidently, "ui", "--workspace", str(out / "workspace"), "--port", str(port), "--host", "127.0.0.1"]
        os.execve(evidently, command, {**os.environ, "DO_NOT_TRACK": "1"})


@app.command("interactions")
def interactions_command(
    out: Annotated[str, typer.Argument(help="Parquet file or URL to write.")] = str(OUT / "interactions.parquet"),
    config: Config = None,
) -> None:
    """Writes everybody's interactions, the imported ones and the feedback since, as input for the pipelines."""
    from monitoring.users.interactions import write_interactions

    count = write_interactions(open_store(), load_settings(MonitoringConfig, config), out)
    console.print(f"{count} interactions in {escape(str(out))}")


@app.command("import-past")
def import_past_command(
    dataset: Annotated[
        str, typer.Argument(help="Folder or URL of the data set that the first release was trained on.")
    ],
) -> None:
    """Imports users' interactions from before the collector was there, so that histories are rebuilt whole."""
    from monitoring.users.interactions import read_interactions

    console.print(f"{open_store().import_interactions(read_interactions(dataset))} users")


@app.command("erase")
def erase_command(
    user: Annotated[str | None, typer.Option(help="The user's id.")] = None,
    again: Annotated[
        bool, typer.Option("--replay", help="Everybody in the ledger once more: after a restore.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of exports and interactions; the default one if any.")
    ] = None,
    files: Annotated[list[str] | None, typer.Option(help="Parquet, a file, folder or URL; may be repeated.")] = None,
    spool: Annotated[list[str] | None, typer.Option(help="A sender's spool, folder or URL; may be repeated.")] = None,
    features: Annotated[Path | None, typer.Option(help="Feature repository; the online rows go as well.")] = None,
    ledger: Annotated[str, typer.Option(help="Folder or URL of receipts, outside the database.")] = str(
        OUT / "erasures"
    ),
    config: Config = None,
) -> None:
    """Removes a user from the store and every named place; exits with status 1 where a place was not reached."""
    from feature_repo.store import open_store as open_feast
    from monitoring.users.erase import Places, erase, replay
    from monitoring.users.ledger import Ledger

    if again == (user is not None):
        raise typer.BadParameter("expected either --user or --replay")
    place = out or OUT  # our own, where nothing may have been exported yet
    named = out is not None and not out.is_dir()
    written = [str(place)] if named or any(place.rglob("*.parquet")) else []
    feast = open_feast(repository=features) if features else None
    places = Places([*(files or []), *written], spool or [], feast)
    if user is None:
        outcomes = replay(open_store(), Ledger(ledger), places)
    else:
        slack = timedelta(seconds=load_settings(MonitoringConfig, config).future_seconds)
        receipt = erase(open_store(), user, datetime.now(UTC), slack, Ledger(ledger), places)
        console.print(f"receipt {escape(receipt.name)} in {escape(ledger)}")
        outcomes = list(receipt.outcomes)
    print_outcomes(outcomes)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


@app.command("retain")
def retain_command(out: Out = OUT, config: Config = None) -> None:
    """Removes events older than the configured retention."""
    from monitoring.users.erase import retain

    settings = load_settings(MonitoringConfig, config)
    for place, count in retain(open_store(), settings.retention_days, datetime.now(UTC), out / "exports").items():
        console.print(f"{place}: {count} removed")


@app.command("dashboards")
def dashboards_command() -> None:
    """Writes the Grafana dashboards' JSON beside their code."""
    from monitoring.dashboards.boards import write

    for path in write():
        console.print(f"{path} written")


def main() -> None:
    """Runs the command line; an error raised on purpose becomes a message and exit status 1."""
    exit_on_sigterm()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("newfound").setLevel(logging.INFO)
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
