"""Published files, the commands, and the item matrix: whole, typed, equal to what the stores hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from testbench_dagster.board.published import render_page
from testbench_dagster.cli import cli
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.publish.export import write_item_matrix, write_ranking
from testbench_dagster.stages.publish.publish import publish, published_folder, write_whole
from testbench_dagster.stages.rank import leaderboard
from testbench_dagster.stages.rank.items import ITEM_COLUMNS, items
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import LEADERBOARDS
from testbench_dagster_tests.stages.rank.test_ranking import NOW, fill
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

MAIN = [sys.executable, "-c", "from testbench_dagster.cli import main; main()"]


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    tasks = [{"name": n, "samples": "all"} for n in ("starter_logic", "starter_units")]
    settings = {"tasks": tasks, "taxonomies": ["builtin:starter"], "simulation": True}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        fill(facts, {(ALPHA, "starter_logic"): 12, (BETA, "starter_logic"): 18, (BETA, "starter_units"): 3})
        logic = facts.registration("starter_logic", n_docs=40)
        facts.attempt(logic, 30, Fault.EMPTY, NOW, supplier=ALPHA)
        refresh_summaries(workspace, [ALPHA, BETA])
        yield facts


def test_the_published_files_show_the_stored_board(facts: Facts) -> None:
    done = publish(facts.workspace, render_page)
    folder = published_folder(facts.workspace)
    names = {"leaderboard.html", "feed.json", "feed.prom", "item_matrix.parquet"}
    assert {p.name for p in folder.iterdir()} == names == {p.name for p in done.files}
    assert done.left_out == {}
    assert all(path.stat().st_size == size for path, size in done.files.items())
    data = json.loads((folder / "feed.json").read_text("utf-8"))
    ranked = {e.supplier: e for e in leaderboard(facts.workspace)}
    assert {s["supplier"]: s["lower_bound"] for s in data["suppliers"]} == {
        k: e.ci_low for k, e in ranked.items()
    }
    families = {f.name: f for f in text_string_to_metric_families((folder / "feed.prom").read_text("utf-8"))}
    values = {s.labels["supplier"]: s.value for s in families["testbench_supplier_score"].samples}
    assert values == {key: entry.score for key, entry in ranked.items()}
    page = (folder / "leaderboard.html").read_text("utf-8")
    assert ALPHA in page and "Simulation" in page and "empty 1" in page
    assert pq.read_table(folder / "item_matrix.parquet").num_rows == 20 * 3 + 1


def test_everything_published_is_as_of_one_instant(facts: Facts) -> None:
    """Board, page, feeds and item matrix: at an instant when the samples are too old, none shows one."""
    folder = published_folder(facts.workspace)
    now = publish(facts.workspace, render_page, now=NOW).board
    assert now.made_at == NOW and [entry.n for entry in now.entries] == [20, 40]
    assert pq.read_table(folder / "item_matrix.parquet").num_rows == 61
    later = NOW + timedelta(days=facts.workspace.config.settings.sampling.max_age_days + 4)
    then = publish(facts.workspace, render_page, now=later).board
    assert then.made_at == later and [(entry.score, entry.n) for entry in then.entries] == [(None, 0)] * 2
    assert json.loads((folder / "feed.json").read_text("utf-8"))["made_at"] == later.isoformat()
    assert pq.read_table(folder / "item_matrix.parquet").num_rows == 0
    (stored,) = facts.workspace.documents.find(LEADERBOARDS)
    assert abs(stored["made_at"] - later) < timedelta(milliseconds=1), "what the stores tell apart"


def test_a_matrix_too_large_is_left_out_and_said(facts: Facts) -> None:
    publish(facts.workspace, render_page)
    done = publish(facts.workspace, render_page, max_pairs=3)
    assert done.left_out == {
        "item_matrix.parquet": "4 suppliers × tasks, more than 3: testbench export writes it"
    }
    assert not (published_folder(facts.workspace) / "item_matrix.parquet").exists(), "no old one beside it"


def test_the_item_matrix_pivots_to_suppliers_by_docs(facts: Facts, tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    rows = list(items(facts.workspace, NOW))
    assert write_item_matrix(facts.workspace, path) == len(rows) == 61
    table = pq.read_table(path)
    assert table.column_names == list(ITEM_COLUMNS) == list(rows[0])
    assert pa.types.is_dictionary(table.schema.field("supplier").type)
    frame = table.to_pandas()
    wide = frame.pivot(index=["task", "doc_id"], columns="supplier", values="value")
    assert wide.shape == (41, 2)
    assert wide.loc["starter_logic", BETA].sum() == 18
    assert wide.loc[("starter_logic", 30)].isna().all(), "an error is no zero"
    assert wide.loc["starter_units", BETA].mean() == 3 / 20
    (failed,) = [r for r in table.to_pylist() if r["outcome"] == "empty"]
    assert (failed["supplier"], failed["doc_id"], failed["value"]) == (ALPHA, 30, None)


def test_schemas_do_not_depend_on_the_rows(tmp_path: Path, facts: Facts) -> None:
    full, empty = tmp_path / "full.parquet", tmp_path / "empty.parquet"
    write_item_matrix(facts.workspace, full)
    other = tmp_path / "other"
    other.mkdir()
    settings = {"tasks": [{"name": "starter_logic", "samples": "all"}]}
    with Workspace(configuration(other, settings)) as nothing:
        assert write_item_matrix(nothing, empty) == 0
    assert pq.read_schema(full) == pq.read_schema(empty)
    write_ranking(full, leaderboard(facts.workspace))
    write_ranking(empty, [])
    assert pq.read_schema(full) == pq.read_schema(empty)
    best = pq.read_table(full).to_pylist()[0]
    entry = leaderboard(facts.workspace)[0]
    assert best["score"] == entry.score and best["latency_p50_ms"] == entry.latency_ms["p50"]
    assert set(best) == {*vars(entry), "latency_p50_ms", "latency_p95_ms"} - {"latency_ms"}


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "feed.json"
    write_whole(path, "first")
    write_whole(path, "second é \ud800")
    assert path.read_text("utf-8") == "second é ?"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="No such file"):
        write_whole(tmp_path / "nowhere" / "feed.json", "x")


# ---------------------------------------------------------------------------------------------- commands


def run(facts: Facts, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["-c", str(facts.workspace.config.path), *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_page_and_the_feeds_by_command(facts: Facts, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, said = run(facts, "leaderboard", "--html", str(page))
    assert (code, out) == (0, "")
    assert f"written: {page}" in said and page.read_text("utf-8").startswith("<!doctype html>")
    code, out, _ = run(facts, "feed")
    assert code == 0 and [s["supplier"] for s in json.loads(out)["suppliers"]] == [
        e.supplier for e in leaderboard(facts.workspace)
    ]
    code, out, _ = run(facts, "feed", "--format", "prometheus")
    assert code == 0 and len(list(text_string_to_metric_families(out))) > 15
    target = tmp_path / "feed.prom"
    assert run(facts, "feed", "--format", "prometheus", "--out", str(target))[:2] == (0, "")
    assert target.read_text("utf-8").startswith("# HELP testbench_feed_made_timestamp_seconds ")


def test_wrong_use_is_told(facts: Facts, tmp_path: Path) -> None:
    code, _, said = run(facts, "feed", "--serve", "--out", str(tmp_path / "x"))
    assert code == 2 and "--serve and --out exclude each other" in said
    done = subprocess.run(
        [*MAIN, "-c", str(facts.workspace.config.path), "feed", "--out", "/nowhere/x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: cannot write /nowhere/x: No such file or directory; choose another file\n"


def test_the_server_serves_until_interrupted(facts: Facts) -> None:
    process = subprocess.Popen(
        [*MAIN, "-c", str(facts.workspace.config.path), "feed", "--serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("serving http://127.0.0.1:"), line
        url = line.split()[1].removesuffix("/metrics,")
        with urllib.request.urlopen(f"{url}/feed.json", timeout=20) as answer:
            assert len(json.load(answer)["suppliers"]) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == "interrupted\n"
    finally:
        process.kill()
        process.wait()
