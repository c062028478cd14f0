"""The dashboards that newfound brings for Grafana. `python -m monitoring dashboards` writes the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from monitoring.dashboards.grafana import Dashboard, Panel, Query, Variable

HERE: Final = Path(__file__).parent
_OF: Final = '{release="$release",window="$window"}'
_RELEASE: Final = Variable("release", "label_values(newfound_window_slates, release)", "all")
_WINDOW: Final = Variable("window", "label_values(newfound_window_slates, window)", "1d")


def _of(measure: str, legend: str = "") -> Query:
    """A measure of the chosen release and window, and its legend."""
    return Query(f"newfound_window_{measure}{_OF}", legend or measure.replace("_", " "))


def _bound(measure: str) -> Query:
    return Query(f'newfound_window_bound{{release="all",window="$window",measure="{measure}"}}', "bound")


NOVELTY: Final = Dashboard(
    uid="newfound-novelty",
    title="newfound: novelty and engagement",
    variables=(_RELEASE, _WINDOW),
    panels=(
        Panel(
            "Novelty ratio",
            "Impressions from never-consumed clusters / impressions.",
            (_of("novelty_ratio"), _bound("novelty_ratio")),
            unit="percentunit",
            low=0,
        ),
        Panel(
            "Positive rate",
            "Of impressions, by kind of slot.",
            (
                _of("novel_positive_rate", "novel"),
                _of("familiar_positive_rate", "familiar"),
                _bound("novel_positive_rate"),
            ),
            unit="percentunit",
            low=0,
        ),
        Panel(
            "Suppression ratio",
            "Exposure of exploration over its appeal; below 1 it is shown too little.",
            (
                _of("suppression_ratio", "ratio"),
                _of("suppression_exposure", "exposure"),
                _of("suppression_appeal", "appeal"),
            ),
            low=0,
        ),
        Panel(
            "Exposure over clusters",
            "Entropy 1 and Gini 0 are even.",
            (_of("exposure_entropy", "entropy"), _of("exposure_gini", "Gini")),
            low=0,
            high=1,
        ),
        Panel(
            "UCI@N",
            "Users who consumed N unique clusters in 7 days.",
            (Query('newfound_window_uci{release="$release",window="$window"}', "N = {{n}}"),),
            low=0,
        ),
        Panel(
            "UEUC",
            "Distinct (user, cluster) pairs with positive feedback.",
            (Query('newfound_window_ueuc{release="$release",window="$window"}', "pairs"),),
            low=0,
        ),
        Panel(
            "Retained interests",
            "Share of pairs engaged again at least a day later.",
            (Query('newfound_window_retained_interest{release="$release",window="$window"}', "retained"),),
            unit="percentunit",
            low=0,
        ),
        Panel(
            "Reason codes",
            "Share of slots.",
            (Query(f"newfound_window_reason_share{_OF}", "{{reason}}"),),
            unit="percentunit",
            low=0,
        ),
        Panel(
            "Planner and table",
            "Live match rate, and successors that the user had already.",
            (_of("match_rate", "match rate"), _of("leak", "leak")),
            unit="percentunit",
            low=0,
            high=1,
        ),
        Panel(
            "Successor Jaccard",
            "Top-5 successors of the current release's table against the one before.",
            (Query('newfound_window_successor_jaccard{release="all",window="$window"}', "Jaccard"),),
            low=0,
            high=1,
        ),
        Panel(
            "Drift",
            "Distance of histories, scores and exposure from the reference windows.",
            (Query('newfound_window_drift{release="all",window="$window"}', "{{column}}"),),
            low=0,
            limit=0.1,
        ),
        Panel(
            "What another policy would have earned",
            "Positive rate on novel slots by IPS, SNIPS and doubly robust, from the logged propensities.",
            (
                Query(
                    f'newfound_window_offpolicy{{{_OF[1:-1]},figure=~"ips|snips|dr"}}',
                    "{{policy}} {{figure}}",
                ),
                _of("novel_positive_rate", "as it was"),
            ),
            unit="percentunit",
            low=0,
        ),
        Panel(
            "Bounds",
            "1 where the bound holds.",
            (Query('newfound_window_passed{release="all",window="$window"}', "{{measure}}"),),
            low=0,
            high=1,
        ),
        Panel(
            "Decisions",
            "Refreshes, fine-tunings and refits that were due so far.",
            (Query("newfound_decisions", "{{action}}"),),
            low=0,
        ),
        Panel(
            "Age of the release",
            "Since the current release was made.",
            (Query("time() - newfound_release_created_timestamp_seconds", "{{release}}"),),
            unit="s",
            low=0,
        ),
    ),
)

SERVING: Final = Dashboard(
    uid="newfound-serving",
    title="newfound: serving",
    panels=(
        Panel(
            "Requests",
            "By status.",
            (Query("sum by (status) (rate(newfound_request_seconds_count[5m]))", "{{status}}"),),
            unit="reqps",
            low=0,
        ),
        Panel(
            "Latency",
            "Of whole requests.",
            tuple(
                Query(f"histogram_quantile({q}, sum by (le) (rate(newfound_request_seconds_bucket[5m])))", f"p{q}")
                for q in (0.5, 0.9, 0.99)
            ),
            unit="s",
            low=0,
            limit=0.03,
        ),
        Panel(
            "Stages",
            "Median of each stage.",
            (
                Query(
                    "histogram_quantile(0.5, sum by (le, stage) (rate(newfound_stage_seconds_bucket[5m])))", "{{stage}}"
                ),
            ),
            unit="s",
            low=0,
        ),
        Panel(
            "Slots",
            "By kind and reason.",
            (Query("sum by (kind, reason) (rate(newfound_slots_total[5m]))", "{{kind}} {{reason}}"),),
            low=0,
        ),
        Panel(
            "Release that serves",
            "1 for the release that each explorer serves.",
            (Query("count by (release) (newfound_release_info == 1)", "{{release}}"),),
            low=0,
        ),
        Panel(
            "New items",
            "That the release serves with; they appeared after it was made.",
            (Query("max by (pod) (newfound_new_items)", "{{pod}}"),),
            low=0,
        ),
        Panel(
            "Age of the takedown list",
            "Since the service that is furthest behind last read it.",
            (Query("max(newfound_takedown_age_seconds)", "age"),),
            unit="s",
            low=0,
            limit=60,
        ),
        Panel(
            "Events on their way",
            "Waiting in memory, and acknowledged.",
            (
                Query("sum(newfound_outbox_events)", "waiting"),
                Query("sum(rate(newfound_events_sent_total[5m]))", "sent/s"),
            ),
            low=0,
        ),
        Panel(
            "Spool",
            "Events waiting on disk while the collector is away.",
            (Query("sum(newfound_spool_bytes)", "bytes"),),
            unit="bytes",
            low=0,
        ),
        Panel(
            "Stale interests",
            "Stored interests of other clusters than those that serve, worked out anew.",
            (Query("sum(rate(newfound_stale_interests_total[5m]))", "a second"),),
            unit="reqps",
            low=0,
        ),
        Panel(
            "Shed",
            "Requests refused because too many were in flight.",
            (Query("sum(rate(newfound_shed_total[5m]))", "shed/s"),),
            unit="reqps",
            low=0,
        ),
    ),
)

COLLECTOR: Final = Dashboard(
    uid="newfound-collector",
    title="newfound: collector",
    panels=(
        Panel(
            "Events",
            "Stored, and known already.",
            (Query("sum by (table, outcome) (rate(newfound_collector_events_total[5m]))", "{{table}} {{outcome}}"),),
            unit="cps",
            low=0,
        ),
        Panel(
            "Commit",
            "Seconds of a transaction.",
            tuple(
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(newfound_collector_commit_seconds_bucket[5m])))",
                    f"p{q}",
                )
                for q in (0.5, 0.99)
            ),
            unit="s",
            low=0,
        ),
        Panel(
            "Age of events",
            "From the event to its commit.",
            tuple(
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(newfound_collector_event_age_seconds_bucket[5m])))",
                    f"p{q}",
                )
                for q in (0.5, 0.99)
            ),
            unit="s",
            low=0,
        ),
        Panel(
            "Waiting",
            "Events waiting for their commit.",
            (Query("sum(newfound_collector_queue_events)", "events"),),
            low=0,
        ),
        Panel(
            "Histories behind",
            "Age of the oldest feedback that Feast does not have yet.",
            (Query("max(newfound_collector_history_lag_seconds)", "lag"),),
            unit="s",
            low=0,
            limit=30,
        ),
        Panel(
            "Histories written", "To Feast.", (Query("sum(newfound_collector_histories_pushed)", "histories"),), low=0
        ),
    ),
)

BOARDS: Final = {"novelty": NOVELTY, "serving": SERVING, "collector": COLLECTOR}


def text_of(board: Dashboard) -> str:
    """The dashboard's JSON as it is committed."""
    return json.dumps(board.document(), indent=2) + "\n"


def write(folder: Path = HERE) -> list[Path]:
    """Writes every dashboard's JSON."""
    written = []
    for name, board in BOARDS.items():
        path = folder / f"{name}.json"
        path.write_text(text_of(board), encoding="utf-8")
        written.append(path)
    return written
