"""Service quality as commands, Python, files and partitions show it, and how quiet all are without probes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from starlette.testclient import TestClient

from testbench_dagster.api import Testbench
from testbench_dagster.board import links
from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.cli import cli
from testbench_dagster.cli.service_lines import service_lines
from testbench_dagster.core.columns import columns_of
from testbench_dagster.core.service_quality import ServiceQuality
from testbench_dagster.defs.per_partition import scores_shown
from testbench_dagster.ranking.feeds import feed, render_prometheus
from testbench_dagster.stages.rank import make_board
from testbench_dagster.stages.read.service import recent_service
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration
from testbench_dagster_tests.stages.service.probed import hourly, probe, store

TASK = "starter_logic"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """An installation with scores and without any probe."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    with Workspace(configuration(tmp_path, {"tasks": [{"name": TASK}]})) as workspace:
        facts = Facts(workspace)
        registration = facts.registration(TASK)
        for number in range(10):
            facts.score(registration, number, at=NOW - timedelta(hours=number))
        yield workspace


@pytest.fixture
def workspace(quiet: Workspace) -> Workspace:
    """The same after probes: one supplier answered all of them, the other none of a few."""
    store(quiet, [*hourly(ALPHA, NOW, 40), *hourly(ALPHA, NOW, 10, "1k", seed=2)])
    store(quiet, (probe(BETA, NOW - timedelta(hours=i), fault="unavailable") for i in range(3)))
    refresh_service_quality(quiet, [ALPHA, BETA], NOW)
    return quiet


def run(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-c", str(workspace.config.path), *arguments])


def test_the_command_prints_a_row_per_workload(workspace: Workspace) -> None:
    done = run(workspace, "service")
    assert done.exit_code == 0, done.output
    rows = {row.workload: row for row in recent_service(workspace, NOW, [ALPHA])}
    short = rows["short"]
    p50, low, high = (short.ttft_ms[name] for name in ("p50", "p50_low", "p50_high"))
    assert f"{p50:.0f} ({low:.0f}–{high:.0f})" in done.stdout
    assert "40/40" in done.stdout and "0/3" in done.stdout
    assert "100.0 % (91.2–100.0)" in done.stdout
    assert "context" not in done.stdout, "nobody was asked for it"
    one = run(workspace, "service", "-s", BETA)
    assert ALPHA not in one.stdout and "0.0 % (0.0–56.1)" in one.stdout


def test_json_and_csv_have_every_field(workspace: Workspace) -> None:
    rows = json.loads(run(workspace, "service", "--format", "json").stdout)
    assert [list(row) for row in rows] == [list(columns_of(ServiceQuality))] * 5
    assert [(row["supplier"], row["workload"], row["n"]) for row in rows] == [
        (ALPHA, "all", 50),
        (ALPHA, "short", 40),
        (ALPHA, "1k", 10),
        (BETA, "all", 3),
        (BETA, "short", 3),
    ]
    assert {row["model"] for row in rows} == {"m"}
    as_csv = list(csv.DictReader(io.StringIO(run(workspace, "service", "--format", "csv").stdout)))
    assert json.loads(as_csv[1]["ttft_ms"]) == rows[1]["ttft_ms"]


def test_days_are_chosen(workspace: Workspace) -> None:
    days = json.loads(run(workspace, "service", "--by-day", "-s", ALPHA, "--format", "json").stdout)
    whole = [row for row in days if row["workload"] == "all"]
    assert sum(row["n"] for row in whole) == 50
    assert [row["period"] for row in whole] == sorted({row["period"] for row in whole})
    today = run(workspace, "service", "--by-day", "--since", NOW.date().isoformat(), "--format", "json")
    assert {row["period"] for row in json.loads(today.stdout)} == {NOW.date().isoformat()}
    wrong = run(workspace, "service", "--since", "30d")
    assert wrong.exit_code == 2 and "--by-day" in wrong.output
    assert run(workspace, "service", "--by-day", "--since", "soon").exit_code == 2


def test_show_tells_it_in_lines(workspace: Workspace) -> None:
    done = run(workspace, "show", ALPHA)
    assert done.exit_code == 0, done.output
    assert (
        "service    last 72 hours: 50 of 50 probes answered, up 100.0 % (91.2–100.0) of 40 hours"
        in done.stdout
    )
    assert "short: first token " in done.stdout and ", tokens/s " in done.stdout
    told = json.loads(run(workspace, "show", ALPHA, "--format", "json").stdout)
    assert [row["workload"] for row in told["service_quality"]] == ["all", "short", "1k"]
    assert told["service"] == "external", "what was there keeps its name"
    failed = run(workspace, "show", BETA).stdout
    assert "0 of 3 probes answered, unavailable 3, up 0.0 %" in failed


def test_how_many_probes_medians_lack_is_told(quiet: Workspace) -> None:
    store(quiet, [*hourly(ALPHA, NOW, 2), *hourly(ALPHA, NOW, 6, "1k", seed=2), *hourly(BETA, NOW, 5)])
    refresh_service_quality(quiet, [ALPHA, BETA], NOW)
    told = run(quiet, "service")
    assert "2 rows without medians: 1 to 4 answered probes more until they are known" in told.stderr
    one = run(quiet, "service", "-s", BETA)
    assert "1 row without medians: 1 answered probe more until they are known" in one.stderr
    assert "without medians" not in run(quiet, "service", "--format", "json").stderr
    shown = run(quiet, "show", ALPHA).stdout
    assert "short: first token – ms" in shown and "medians take 4 answered probes more" in shown
    assert shown.count("medians take") == 1, "of 1k there are six"
    site = Site(quiet)
    site.prepare()
    app = make_app(site, hosts=allowed_hosts("127.0.0.1"), clock=lambda: NOW)
    client = TestClient(app, base_url="http://127.0.0.1:3001")
    text = " ".join(client.get(links.supplier(ALPHA)).text.split())
    assert "short: 4 answered probes more until medians are known." in text
    assert text.count("until medians are known") == 1


def test_an_estimate_is_called_one() -> None:
    values = {"value": 2_860.0, "low": 2_734.0, "high": 2_987.0, "n": 60, "in_flight": 2}
    plain = {"supplier": ALPHA, "workload": "all", "n": 0, "estimated_tokens_per_s": values}
    told = list(service_lines([ServiceQuality.from_json(plain)]))
    assert told == [
        "  service    about 2,860 (2,734–2,987) tokens/s, estimated from 60 plain answers with up to "
        "2 requests in flight"
    ]


def test_the_leaderboard_and_the_feeds_have_it(workspace: Workspace) -> None:
    short = recent_service(workspace, NOW, [ALPHA])[1]
    rows = {
        row["supplier"]: row for row in json.loads(run(workspace, "leaderboard", "--format", "json").stdout)
    }
    assert rows[ALPHA]["ttft_p50_ms"] == short.ttft_ms["p50"]
    assert (rows[ALPHA]["uptime"], rows[BETA]["uptime"], rows[BETA]["ttft_p50_ms"]) == (1.0, 0.0, None)
    assert "tokens_per_s_p50" in run(workspace, "leaderboard").stdout
    for by, first in (("score", ALPHA), ("first-token", ALPHA), ("speed", ALPHA), ("uptime", ALPHA)):
        shown = json.loads(run(workspace, "leaderboard", "--by", by, "--format", "json").stdout)
        assert [row["supplier"] for row in shown] == [first, BETA], by
    board = make_board(workspace, now=NOW)
    told = {one["supplier"]: one for one in feed(board)["suppliers"]}
    assert told[ALPHA]["ttft_p50_ms"] == short.ttft_ms["p50"]
    assert told[ALPHA]["uptime_lower_bound"] == pytest.approx(0.912, abs=1e-3)
    prometheus = render_prometheus(board)
    labels = f'{{supplier="{ALPHA}",taxonomy="all tasks"}}'
    assert (
        f"testbench_supplier_first_token_seconds{labels} {(short.ttft_ms['p50'] or 0) / 1000!r}" in prometheus
    )
    assert f"testbench_supplier_tokens_per_second{labels} {short.tokens_per_s['p50']!r}" in prometheus


def test_a_partition_shows_its_own(workspace: Workspace) -> None:
    shown = scores_shown([ALPHA, BETA], [], None, recent_service(workspace, NOW, [ALPHA, BETA]))
    short = recent_service(workspace, NOW, [ALPHA])[1]
    assert shown[ALPHA]["first_token_p50_ms_short"] == round(short.ttft_ms["p50"] or 0, 4)
    assert {"tokens_per_s_p50_1k", "latency_p50_ms_1k"} <= shown[ALPHA].keys()
    assert (shown[ALPHA]["uptime"], shown[BETA]["uptime"]) == (1.0, 0.0)
    assert not any(name.startswith(("first_token", "tokens_per_s")) for name in shown[BETA])


def test_files_have_days_and_probes(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Testbench(workspace) as testbench:
        written = testbench.export(out)
        assert testbench.service_quality().to_pandas()["n"].tolist() == [50, 40, 10, 3, 3]
        later = testbench.export(tmp_path / "none", since=NOW + timedelta(days=2))
    assert written[out / "service_probes.parquet"] == 53
    probes = pq.read_table(out / "service_probes.parquet").to_pylist()
    assert {row["fault"] for row in probes} == {"ok", "unavailable"}
    table = pq.read_table(out / "service_quality.parquet")
    assert {"ttft_p50_ms", "ttft_p50_low_ms", "tokens_per_s_p10", "estimated_tokens_per_s_value"} <= set(
        table.column_names
    )
    rows = [row for row in table.to_pylist() if row["workload"] == "all" and row["supplier"] == ALPHA]
    assert sum(row["n"] for row in rows) == 50
    assert {row["model"] for row in rows} == {"m"}
    assert later[tmp_path / "none" / "service_quality.parquet"] == 0
    assert later[tmp_path / "none" / "service_probes.parquet"] == 0


def test_without_probes_nothing_is_said_of_them(quiet: Workspace) -> None:
    shown = run(quiet, "show", ALPHA)
    assert shown.exit_code == 0 and "  service" not in shown.stdout
    board = run(quiet, "leaderboard").stdout
    assert "uptime" not in board and "tokens_per_s" not in board
    assert scores_shown([ALPHA], [], None)[ALPHA].keys().isdisjoint({"uptime", "speed_estimate"})
    asked = run(quiet, "service")
    assert asked.exit_code == 0
    assert (
        "Service quality: nothing to show" in asked.stdout
        and "service_probes: {enabled: true}" in asked.stderr
    )
    assert json.loads(run(quiet, "service", "--format", "json").stdout) == []
    header = run(quiet, "service", "--format", "csv").stdout.strip()
    assert header == ",".join(columns_of(ServiceQuality))
