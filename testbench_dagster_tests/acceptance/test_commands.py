"""The other promises of the command: check, caps, budget, export and the Python face, on recorded answers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from testbench_dagster import Testbench
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.harness import Answers, Installation, Replay, replays
from testbench_dagster_tests.servers import free_port

SYSTEMS = ("6b_verification", "175b_verification")
DOCS = 30


@pytest.fixture
def servers(answers: Answers, tmp_path: Path) -> Iterator[list[Replay]]:
    with replays([answers.gsm8k(system) for system in SYSTEMS], tmp_path, "--latency-ms", "2") as running:
        yield running


def configure(installation: Installation, servers: list[Replay], **blocks: Any) -> dict[str, Any]:
    urls = {system: server.url for system, server in zip(SYSTEMS, servers, strict=True)}
    settings = gsm8k.settings(urls, DOCS, **blocks)
    installation.configure(**settings)
    return settings


def total_requests(servers: list[Replay]) -> int:
    return sum(server.stats()["requests"] for server in servers)


@pytest.mark.slow
def test_check_of_a_good_configuration(installation: Installation, servers: list[Replay]) -> None:
    configure(installation, servers)
    done = installation.command("check")
    assert done.code == 0, done
    assert "FAIL" not in done.out
    assert "task gsm8k: 1319 docs, 5-shot, generate_until" in done.out
    for system, server in zip(SYSTEMS, servers, strict=True):
        assert f"supplier {system}@external: chat at {server.url} answers in" in done.out
        assert server.stats()["requests"] == 2, "one question, without stop strings and with four"
    with installation.documents() as documents:
        assert documents.count(ATTEMPTS) == 0, "a probe is no measurement"
    quiet = installation.command("check", "--no-suppliers")
    assert quiet.code == 0
    assert total_requests(servers) == 2 * len(servers)


@pytest.mark.slow
def test_check_says_everything_that_is_wrong_and_what_to_do(
    installation: Installation, servers: list[Replay]
) -> None:
    settings = configure(installation, servers, taxonomies=["absent.tax"])
    settings["suppliers"][0]["base_url"] = f"http://127.0.0.1:{free_port()}/v1"
    settings["suppliers"][1]["api_key_env"] = "TESTBENCH_NO_SUCH_KEY"
    elsewhere = {"address": "elsewhere", "base_url": servers[0].url.removesuffix("/v1")}
    settings["suppliers"].append({**settings["suppliers"][0], **elsewhere})
    settings["tasks"][0]["data"]["test"] = "absent.jsonl"
    settings["relays"] = {"connect_s": 2}
    installation.configure(**settings)
    done = installation.command("check")
    assert done.code == 1, done
    assert "Traceback" not in done.err
    failures = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 5
    task, taxonomy, unreachable, locked, misled = failures
    assert "task gsm8k" in task and "absent.jsonl" in task and "correct the path" in task
    assert "absent.tax" in taxonomy
    assert "6b_verification@external" in unreachable and "is it running" in unreachable
    assert "TESTBENCH_NO_SUCH_KEY" in locked and "export it" in locked
    assert "credentials, HTTP 404" in misled and "check api_key_env, base_url and model" in misled
    assert "5 problems found" in done.err


@pytest.mark.slow
def test_max_relays_are_never_exceeded_and_runs_add_up(
    installation: Installation, servers: list[Replay]
) -> None:
    """All are asked the same docs: of seven relays two suppliers get three each, and the last is not sent."""
    configure(installation, servers)
    for sent in (6, 12):
        installation.run("--max-relays", "7")
        assert total_requests(servers) == sent
    counts = [server.stats()["requests"] for server in servers]
    assert counts == [6, 6]
    installation.run("--supplier", "175b_verification@external")
    assert [server.stats()["requests"] for server in servers] == [counts[0], DOCS], "one supplier of two"
    done = installation.run()
    assert total_requests(servers) == 2 * DOCS
    assert f"{DOCS - counts[0]} relays sent" in done.err
    again = installation.run()
    assert total_requests(servers) == 2 * DOCS
    assert "0 relays sent" in again.err
    assert [server.stats()["duplicates"] for server in servers] == [0, 0]


@pytest.mark.slow
def test_max_relays_counts_retries(installation: Installation, answers: Answers, tmp_path: Path) -> None:
    with Replay(answers.gsm8k(SYSTEMS[1]), tmp_path, "--fail-mode", "reset", "--fail-rate", "0.5") as server:
        installation.configure(**gsm8k.settings({"resets": server.url}, DOCS))
        installation.command("run", "--max-relays", "11")
        assert server.stats()["requests"] == 11
    with installation.documents() as documents:
        assert documents.count(ATTEMPTS) == 11


@pytest.mark.slow
def test_the_budget_is_a_hard_cap_per_service_and_day(
    installation: Installation, servers: list[Replay]
) -> None:
    settings = configure(installation, servers, budget={"relays_per_day": 12})
    settings["suppliers"][1]["service"] = "other"
    installation.configure(**settings)
    for _ in range(2):
        installation.run()
        assert [server.stats()["requests"] for server in servers] == [12, 12]
    settings["suppliers"][1]["service"] = "external"
    settings["budget"]["relays_per_day"] = 20
    installation.configure(**settings)
    installation.run()
    assert total_requests(servers) == 24 + 8, "both suppliers now share what is left of one service's budget"


@pytest.mark.slow
def test_all_are_asked_the_same_number_of_docs(installation: Installation, servers: list[Replay]) -> None:
    """Two suppliers set no number: it is ``start``, whatever they answer and however often one runs."""
    settings = configure(installation, servers)
    settings["tasks"][0]["samples"] = {"min": 20, "max": 200, "half_width": 0.12}
    settings["sampling"] = {"window": 200, "epoch_seed": 1}
    installation.configure(**settings)
    for _ in range(2):
        installation.run()
        for system, server in zip(SYSTEMS, servers, strict=True):
            row = gsm8k.primary(installation.scores(), system)
            assert row["n"] == row["n_planned"] == server.stats()["requests"] == 50


@pytest.mark.slow
def test_what_is_printed_exported_and_opened_is_the_same(
    installation: Installation, servers: list[Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 30 docs on which the better system is the better one, whatever the draw
    configure(installation, servers, sampling={"window": 100, "epoch_seed": 1})
    installation.run()
    rows = installation.scores()
    assert len(rows) == len(SYSTEMS) * len(gsm8k.FILTERS)

    table = installation.command("scores")
    assert table.code == 0
    for row in rows:
        assert f"{row['score']:.4f}" in table.out
    as_csv = list(csv.DictReader(io.StringIO(installation.command("scores", "--format", "csv").out)))
    assert [float(row["score"]) for row in as_csv] == [row["score"] for row in rows]
    assert [json.loads(row["errors"]) for row in as_csv] == [row["errors"] for row in rows]

    out = installation.folder / "parquet"
    done = installation.command("export", "--out", str(out))
    assert done.code == 0, done
    frames = {path.stem: pd.read_parquet(path) for path in out.iterdir()}
    assert {name: len(frame) for name, frame in frames.items()} == {
        "prompts": DOCS,
        "attempts": 2 * DOCS,
        "answers": 2 * DOCS,
        "scores": 2 * DOCS * len(gsm8k.FILTERS),
        "windows": len(rows),
        "references": 0,
        "public_gaps": 0,
        "groups": 0,
        "service_probes": 0,
        "service_quality": 0,
        "item_matrix": 2 * DOCS,
        "leaderboard": len(SYSTEMS),
    }
    assert list(frames["windows"]["score"]) == [row["score"] for row in rows]
    matrix = frames["item_matrix"].pivot(index="doc_id", columns="supplier", values="value")
    for system in SYSTEMS:
        row = gsm8k.primary(rows, system)
        truth = gsm8k.flags(system)
        column = matrix[row["supplier"]]
        assert dict(column) == {doc: truth[doc] for doc in column.index}
        assert column.mean() == pytest.approx(row["score"], abs=1e-12)
    body = json.loads(frames["attempts"]["body"].iloc[0])
    assert body["object"] == "chat.completion"

    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    with Testbench.open(installation.folder / "testbench.yaml") as testbench:
        scored = testbench.scores()
        assert scored.rows == rows
        frame = scored.to_pandas()
        assert list(frame["score"]) == [row["score"] for row in rows]
        assert list(frame["last_sample_at"]) == [pd.Timestamp(row["last_sample_at"]) for row in rows]
        assert len(testbench.attempts().to_pandas()) == 2 * DOCS
        ranked = testbench.leaderboard().to_pandas()
    assert list(ranked["supplier"]) == ["175b_verification@external", "6b_verification@external"]
    for system, score in zip(reversed(SYSTEMS), ranked["score"], strict=True):
        assert score == pytest.approx(gsm8k.primary(rows, system)["score"], abs=1e-12)
    printed = installation.command("leaderboard", "--format", "json")
    assert [row["score"] for row in json.loads(printed.out)] == list(ranked["score"])
