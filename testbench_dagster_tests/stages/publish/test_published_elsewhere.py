"""Pages and feeds on another host: out of the stores that both share, and where `publish` says."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml

from testbench_dagster.board.published import render_page
from testbench_dagster.config import load_config
from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.defs.summaries.assets import leaderboard_asset
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.publish.publish import Published, publish, published_folder
from testbench_dagster.stages.rank import leaderboard
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.places import Place
from testbench_dagster_tests.conftest import forget_filesystems
from testbench_dagster_tests.servers import S3_KEYS
from testbench_dagster_tests.stages.rank.test_ranking import fill
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts

MAIN = [sys.executable, "-c", "from testbench_dagster.cli import main; main()"]
SUPPLIERS = [
    {"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": api}
    for name, api in (("alpha", "chat"), ("beta", "completions"))
]
SETTINGS = {
    "suppliers": SUPPLIERS,
    "tasks": [{"name": name, "samples": "all"} for name in ("starter_logic", "starter_units")],
    "taxonomies": ["builtin:starter"],
}
FILES = {"leaderboard.html", "feed.json", "feed.prom", "item_matrix.parquet"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Workspace]]:
    """An installation with facts, opened again and again with another place to publish to."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "testbench.yaml"
    opened: list[Workspace] = []

    def build(url: str) -> Workspace:
        path.write_text(yaml.safe_dump({**SETTINGS, "publish": url}), encoding="utf-8")
        opened.append(Workspace(load_config(path)))
        if len(opened) == 1:
            filled(opened[0])
        return opened[-1]

    yield build
    for workspace in opened:
        workspace.close()


def filled(workspace: Workspace) -> None:
    fill(
        Facts(workspace),
        {(ALPHA, "starter_logic"): 12, (BETA, "starter_logic"): 18, (BETA, "starter_units"): 3},
    )
    refresh_summaries(workspace, [ALPHA, BETA])


def stands_there(done: Published, workspace: Workspace, url: str) -> None:
    """All that was published, byte for byte."""
    place = Place(url)
    assert (done.place, done.problem) == (place.shown, None)
    for path in done.files:
        assert place.read(path.name) == path.read_bytes()
    assert {path.name for path in done.files} == FILES
    fed = json.loads(place.read("feed.json") or b"")
    assert [one["supplier"] for one in fed["suppliers"]] == [e.supplier for e in leaderboard(workspace)]
    assert pq.read_table(io.BytesIO(place.read("item_matrix.parquet") or b"")).num_rows == 60


def test_published_files_stand_where_the_configuration_says(
    here: Callable[[str], Workspace], s3_bucket: str, tmp_path: Path
) -> None:
    for url in (f"{s3_bucket}/site", f"file://{tmp_path}/site"):
        workspace = here(url)
        stands_there(publish(workspace, render_page), workspace, url)
        told = next(found for found in findings(workspace) if found.what == "publish")
        assert told.ok and told.detail == Place(url).shown
        less = publish(workspace, render_page, max_pairs=3)
        assert less.problem is None and list(less.left_out) == ["item_matrix.parquet"]
        assert Place(url).read("item_matrix.parquet") is None, "no old one beside it"


def test_a_place_that_fails_is_told_and_gets_the_next_ranking(
    here: Callable[[str], Workspace], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3_bucket}/site"
    workspace = here(url)
    address = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_filesystems()
    done = publish(workspace, render_page)
    assert done.problem is not None and "\n" not in done.problem
    assert re.match(
        r"cannot write s3://tb-\w+/site/\S+: Could not connect .*; check the place.*again$", done.problem
    )
    assert not any(value in done.problem for value in S3_KEYS.values())
    assert {path.name for path in published_folder(workspace).iterdir()} == FILES, (
        "here they are all the same"
    )
    told = next(found for found in findings(workspace) if found.what == "publish")
    assert not told.ok and "Could not connect" in told.detail
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    forget_filesystems()
    stands_there(publish(workspace, render_page), workspace, url)


@pytest.mark.slow(minutes=0.2)
def test_the_asset_goes_well_where_its_place_does_not(
    here: Callable[[str], Workspace], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = here(f"{s3_bucket}/site")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_filesystems()
    done = dg.materialize([leaderboard_asset(AutomationSettings())], resources={"workspace": workspace})
    assert done.success
    [ranked] = done.asset_materializations_for_node("leaderboard")
    assert "Could not connect" in str(ranked.metadata["published to"].value)
    assert "suppliers" in ranked.metadata


@contextmanager
def serving(config: Path, home: Path, *arguments: str) -> Iterator[str]:
    """A command that serves, in a process with a home of its own; yields its URL."""
    process = subprocess.Popen(
        [*MAIN, "-c", str(config), *arguments, "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config.parent,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "TESTBENCH_HOME": str(home)},
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield found.group()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


@pytest.mark.slow(minutes=0.2)
def test_another_host_shows_what_was_ranked_here(
    tmp_path: Path,
    mongo_database_uri: str,
    postgres_database_uri: str,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two folders and two homes; in common are the stores alone, by their URIs, and the bucket."""
    monkeypatch.setenv("TESTBENCH_MONGO_URI", mongo_database_uri)
    monkeypatch.setenv("TESTBENCH_POSTGRES_URI", postgres_database_uri)
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        settings = {**SETTINGS, "publish": f"{s3_bucket}/site"}
        (folder / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(a / "testbench.yaml")) as workspace:
        filled(workspace)
        began = EpochRecord(id="e", task="starter_logic", epoch=1, started_at=NOW, seed="s", seed_sha256="h")
        typed.put_new(workspace.documents, EpochRecord, [began])
        done = publish(workspace, render_page)
        assert done.problem is None
        ranked = [entry.supplier for entry in leaderboard(workspace)]
        scores = {entry.supplier: entry.score for entry in done.board.entries}
    a.rename(tmp_path / "gone")
    with serving(b / "testbench.yaml", b / "home", "feed", "--serve") as url:
        fed = json.loads(get(f"{url}/feed.json"))
        assert [one["supplier"] for one in fed["suppliers"]] == ranked
        assert {one["supplier"]: one["score"] for one in fed["suppliers"]} == scores
        assert ALPHA in get(f"{url}/leaderboard.html") and ALPHA in get(f"{url}/metrics")
    with serving(b / "testbench.yaml", b / "home", "board") as url:
        page = get(f"{url}/")
        assert ALPHA in page and BETA in page
        assert all(f"{score:.3f}" in page for score in scores.values() if score is not None)
        assert "starter_logic" in get(f"{url}/supplier/{ALPHA}")
    assert not (b / "home" / "published").exists()
    monkeypatch.setenv("TESTBENCH_HOME", str(b / "home"))
    with Workspace(load_config(b / "testbench.yaml")) as workspace:
        told = {found.what for found in islice(findings(workspace), 5)}
        assert told >= {"document store", "dataset store", "publish"} and "stores" not in told
    monkeypatch.delenv("TESTBENCH_POSTGRES_URI")
    with Workspace(load_config(b / "testbench.yaml")) as workspace:
        told = next(found for found in findings(workspace) if found.what == "stores")
    assert told.warning and "epochs of starter_logic, whose data" in told.detail
