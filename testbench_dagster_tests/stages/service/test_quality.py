"""Rows of service quality in both stores: made once a day, read in part, kept when probes go, no score's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import testbench_dagster
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.core.records.windows import WindowAnswersRecord, WindowRecord
from testbench_dagster.core.service_quality import ALL_WORKLOADS, ROLLING, ServiceQuality
from testbench_dagster.stages.rank import make_board, store_board, stored_entries
from testbench_dagster.stages.read.service import daily_service, headlines, recent_service
from testbench_dagster.stages.retain import apply_retention
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.reads import documents_read, operations
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration
from testbench_dagster_tests.stages.service.probed import hourly, probe, store

TASK = "starter_logic"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MIDNIGHT = NOW.replace(hour=0)


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.slow)])
def workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "mongodb":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    settings = {"tasks": [{"name": TASK}], "retention": {"evidence_days": 40}}
    with Workspace(configuration(tmp_path, settings)) as opened:
        yield opened


def stored(workspace: Workspace) -> dict[tuple[str, str, str], ServiceQualityRecord]:
    found = typed.find(workspace.documents, ServiceQualityRecord)
    return {(one.supplier, one.workload, one.period): one for one in found}


def test_a_row_per_workload_and_day_and_one_of_72_hours(workspace: Workspace) -> None:
    store(workspace, hourly(ALPHA, NOW - timedelta(minutes=5), 60))
    store(workspace, hourly(ALPHA, NOW - timedelta(minutes=9), 60, "1k", seed=2))
    store(workspace, [probe(BETA, NOW - timedelta(days=3, hours=5))])
    refreshed = refresh_service_quality(workspace, [ALPHA, BETA], NOW)
    assert refreshed.n_written == 4 * 3 + 2
    assert refreshed.recent == recent_service(workspace, NOW), "what is stored need not be read again"
    rows = stored(workspace)
    days = ["2026-03-08", "2026-03-09", "2026-03-10", ROLLING]
    assert sorted(rows) == sorted(
        [
            *((ALPHA, workload, day) for workload in (ALL_WORKLOADS, "short", "1k") for day in days),
            *((BETA, workload, "2026-03-07") for workload in (ALL_WORKLOADS, "short")),
        ]
    )
    assert {period for (_, _, period), one in rows.items() if one.final} == {"2026-03-07", *days[:2]}
    assert rows[ALPHA, "short", ROLLING].row["n"] == 60
    assert rows[ALPHA, ALL_WORKLOADS, ROLLING].row["n"] == 120
    by_day = [rows[ALPHA, "short", day].row["n"] for day in days[:3]]
    assert by_day == [24, 24, 12]


def test_days_made_by_a_clock_that_was_ahead_are_not_final(workspace: Workspace) -> None:
    """Else the days up to then would have no rows, and the one on which it went wrong but a part."""
    ahead = NOW + timedelta(days=30)
    store(workspace, hourly(ALPHA, NOW, 6))
    store(workspace, hourly(ALPHA, ahead - timedelta(days=3), 6))
    refresh_service_quality(workspace, [ALPHA], ahead)
    assert stored(workspace)[ALPHA, "short", "2026-03-10"].final
    later = NOW + timedelta(days=2)
    store(workspace, hourly(ALPHA, later, 40, seed=2))
    refresh_service_quality(workspace, [ALPHA], later)
    rows = stored(workspace)
    n_by_day = [rows[ALPHA, "short", f"2026-03-{day}"].row["n"] for day in (10, 11, 12)]
    assert sum(n_by_day) == 46 and n_by_day[1] == 24


def test_the_same_call_twice_changes_nothing(workspace: Workspace) -> None:
    store(workspace, hourly(ALPHA, NOW, 60))
    refresh_service_quality(workspace, [ALPHA], NOW)
    first = stored(workspace)
    refresh_service_quality(workspace, [ALPHA, ALPHA], NOW)
    assert stored(workspace) == first


def test_a_day_that_is_over_is_made_once_and_only_what_is_new_is_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(workspace, hourly(ALPHA, NOW, 24 * 30))
    refresh_service_quality(workspace, [ALPHA], NOW)
    first = stored(workspace)
    later = NOW + timedelta(hours=2)
    store(workspace, [probe(ALPHA, NOW + timedelta(hours=1))])
    read, done = (
        documents_read(workspace.documents, monkeypatch),
        operations(workspace.documents, monkeypatch),
    )
    written = refresh_service_quality(workspace, [ALPHA], later).n_written
    assert written == 4, "today and 72 hours, of the workload and of all"
    assert read["service_probes"] == 72, "of 721 those of 72 hours"
    assert read["service_quality"] == 3, "the last final day, and which rows of 72 hours there are"
    assert read["attempts"] == 0
    assert sum(done[name] for name in ("find", "rows", "group", "get", "count")) == 4
    assert done["upsert"] == 1
    after = stored(workspace)
    assert {key: one for key, one in after.items() if one.final} == {
        key: one for key, one in first.items() if one.final
    }


def test_a_probe_that_is_stored_just_behind_midnight_is_in_its_day(workspace: Workspace) -> None:
    store(workspace, hourly(ALPHA, MIDNIGHT - timedelta(minutes=30), 6))
    soon = MIDNIGHT + timedelta(minutes=20)
    refresh_service_quality(workspace, [ALPHA], soon)
    assert not stored(workspace)[ALPHA, "short", "2026-03-09"].final
    store(workspace, [probe(ALPHA, MIDNIGHT - timedelta(milliseconds=1))])
    refresh_service_quality(workspace, [ALPHA], MIDNIGHT + timedelta(hours=1))
    day = stored(workspace)[ALPHA, "short", "2026-03-09"]
    assert (day.final, day.row["n"]) == (True, 7)
    refresh_service_quality(workspace, [ALPHA], MIDNIGHT + timedelta(hours=9))
    assert stored(workspace)[ALPHA, "short", "2026-03-09"] == day


def test_what_another_clock_dates_ahead_waits_for_its_time(workspace: Workspace) -> None:
    store(workspace, [*hourly(ALPHA, NOW, 6), probe(ALPHA, NOW + timedelta(minutes=3))])
    refresh_service_quality(workspace, [ALPHA], NOW)
    assert stored(workspace)[ALPHA, "short", ROLLING].row["n"] == 6
    refresh_service_quality(workspace, [ALPHA], NOW + timedelta(minutes=4))
    assert stored(workspace)[ALPHA, "short", ROLLING].row["n"] == 7


def test_who_is_no_longer_probed_has_no_present(workspace: Workspace) -> None:
    store(workspace, hourly(ALPHA, NOW, 12))
    refresh_service_quality(workspace, [ALPHA], NOW)
    assert [row.workload for row in recent_service(workspace, NOW, [ALPHA])] == [ALL_WORKLOADS, "short"]
    assert recent_service(workspace, NOW + timedelta(hours=72), [ALPHA]) == []
    assert headlines(workspace, NOW + timedelta(hours=72)) == {}
    refresh_service_quality(workspace, [ALPHA], NOW + timedelta(days=4))
    assert {period for _, _, period in stored(workspace)} == {"2026-03-10"}, "the day stays"
    assert len(daily_service(workspace, [ALPHA])) == 2


def test_retention_takes_probes_and_leaves_their_days(workspace: Workspace) -> None:
    # a day that nobody made a row of before its probes went
    store(workspace, hourly(ALPHA, NOW - timedelta(days=50), 6))
    store(workspace, hourly(BETA, NOW, 6))
    removed = apply_retention(workspace, NOW)
    assert removed["service_probes"] == 6
    assert {one.supplier for one in typed.find(workspace.documents, ServiceProbeRecord)} == {BETA}
    [whole, short] = daily_service(workspace, [ALPHA])
    assert (whole.workload, whole.uptime, whole.hours_asked) == (ALL_WORKLOADS, 1.0, 6)
    assert short.ttft_ms["p50"] is not None
    before = stored(workspace)
    assert apply_retention(workspace, NOW + timedelta(hours=1))["service_probes"] == 0
    refresh_service_quality(workspace, [ALPHA], NOW + timedelta(hours=2))
    assert stored(workspace) == before


def test_plain_answers_estimate_the_speed_without_any_probe(workspace: Workspace) -> None:
    facts = Facts(workspace)
    registration = facts.registration(TASK)
    for number in range(60):
        facts.attempt(registration, number, at=NOW - timedelta(minutes=number), tokens=(100, 13 + 5 * number))
    for one in list(typed.find(workspace.documents, AttemptRecord)):
        changed = one.to_document() | {
            "own_in_flight": 1,
            "latency_ms": 2.0 + (one.completion_tokens or 0) / 2.9 + (one.doc_id * 7 % 5),
        }
        typed.upsert(workspace.documents, AttemptRecord, [AttemptRecord.from_document(changed)])
    assert refresh_service_quality(workspace, [ALPHA], NOW).n_written == 1
    [row] = recent_service(workspace, NOW, [ALPHA])
    assert (row.workload, row.n, row.uptime) == (ALL_WORKLOADS, 0, None)
    assert row.estimated_tokens_per_s["value"] == pytest.approx(2_900, rel=0.02)
    assert row.estimated_tokens_per_s["n"] == 60


def test_windows_and_scores_are_the_same_with_probes_and_without(workspace: Workspace) -> None:
    facts = Facts(workspace)
    registration = facts.registration(TASK)
    for number in range(20):
        facts.score(registration, number, value=float(number % 3 > 0), at=NOW - timedelta(hours=number))

    def everything() -> object:
        refresh_window_cache(workspace, [ALPHA, BETA], now=NOW)
        records = (ScoreRecord, WindowRecord, WindowAnswersRecord)
        kept = [sorted(map(repr, typed.whole(workspace.documents, of))) for of in records]
        return [row.to_json() for row in windows(workspace, now=NOW)], kept

    before, ranking = everything(), make_board(workspace, now=NOW).entries
    store_board(workspace, make_board(workspace, now=NOW))
    assert stored_entries(workspace, NOW) == ranking
    store(workspace, [*hourly(ALPHA, NOW, 60), *(probe(BETA, NOW, fault="unavailable") for _ in range(20))])
    refresh_service_quality(workspace, [ALPHA, BETA], NOW)
    assert everything() == before
    assert stored_entries(workspace, NOW) is None, "what it shows besides has changed"
    entries = make_board(workspace, now=NOW).entries
    of_service = {"ttft_p50_ms", "tokens_per_s_p50", "uptime", "uptime_low"}
    for old, new in zip(ranking, entries, strict=True):
        assert {k for k, v in old.to_json().items() if new.to_json()[k] != v} <= of_service
    shown = {entry.supplier: entry for entry in entries}
    assert shown[ALPHA].ttft_p50_ms == headlines(workspace, NOW)[ALPHA].ttft_p50_ms is not None
    assert (shown[ALPHA].uptime, shown[BETA].uptime, shown[BETA].ttft_p50_ms) == (1.0, 0.0, None)


def test_prompts_of_any_length_are_not_compared(workspace: Workspace) -> None:
    store(workspace, hourly(ALPHA, NOW, 24, "context"))
    refresh_service_quality(workspace, [ALPHA], NOW)
    assert headlines(workspace, NOW)[ALPHA].ttft_p50_ms is None


def test_speeds_on_a_leaderboard_are_of_one_workload(workspace: Workspace) -> None:
    store(workspace, hourly(ALPHA, NOW, 24, "1k"))
    store(workspace, [*hourly(BETA, NOW, 24, "1k", seed=3), *hourly(BETA, NOW, 24, "short", seed=4)])
    refresh_service_quality(workspace, [ALPHA, BETA], NOW)
    found = headlines(workspace, NOW)
    assert found[ALPHA].ttft_p50_ms is None, "it was not asked what the other is shown by"
    assert found[ALPHA].uptime == 1.0
    [short] = [row for row in recent_service(workspace, NOW, [BETA]) if row.workload == "short"]
    assert found[BETA].ttft_p50_ms == short.ttft_ms["p50"]


def test_no_module_that_scores_or_plans_knows_these_records() -> None:
    of_service = {
        ServiceProbeRecord.__module__,
        ServiceQualityRecord.__module__,
        ServiceQuality.__module__,
        "testbench_dagster.stages.read.service",
        refresh_service_quality.__module__,
    }
    package = Path(testbench_dagster.__file__).parent
    scoring = (
        "scoring",
        "planning",
        "identity",
        "taxonomies",
        "evidence",
        "stages/score",
        "stages/summarize",
    )
    paths = [path for folder in (*scoring, "stages/identify") for path in (package / folder).rglob("*.py")]
    assert len(paths) > 40
    for path in paths:
        assert not {name for name in of_service if name in path.read_text("utf-8")}, path
