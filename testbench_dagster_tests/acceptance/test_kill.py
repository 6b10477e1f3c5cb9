"""`testbench run` killed with SIGKILL at a random instant and started again: as if nothing had happened.

Final scores are the authors' flags, every doc is scored once, and the servers' logs show that nothing was
sent again but what was in flight at the kill or had been answered within the second before it.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from testbench_dagster.stores.documents import Group
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.harness import Answers, Installation, Replay, kill_group, replays
from testbench_dagster_tests.busy import times_slower

SYSTEMS = ("6b_verification", "175b_verification")
DOCS = 400
"""Asked of each system in the tests of one kill; the one of five kills asks all."""
DURABLE_S = 1.0  # an answer is in the store within this time of its arrival, on a machine that keeps up
SEED = os.environ.get("TESTBENCH_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
#: Phases of the kills at random instants; each run draws other instants, `TESTBENCH_TEST_SEED` the same.
PHASES = ["catalog", "relaying", "scoring", "scored"]


def rest_of(process: subprocess.Popen[str]) -> str:
    """What an ended command had to say."""
    assert process.stderr is not None
    return f"exit code {process.returncode}, {process.stderr.read()[-2000:]}"


def requests_so_far(servers: Sequence[Replay]) -> int:
    return sum(server.stats()["requests"] for server in servers)


def wait_for_the_instant(
    process: subprocess.Popen[str],
    installation: Installation,
    servers: Sequence[Replay],
    phase: str,
    draw: random.Random,
) -> str:
    """Return when the random instant within the phase has come, and say which it was."""
    if phase == "catalog":
        # the catalog takes seconds (lm-eval is imported); should it be done earlier, that is an instant too
        delay, began = draw.uniform(0.3, 8.0), time.monotonic()
        while time.monotonic() - began < delay and not requests_so_far(servers):
            time.sleep(0.01)
        return f"{time.monotonic() - began:.2f} s after the start, {requests_so_far(servers)} requests"
    total = DOCS * len(SYSTEMS)
    share = draw.uniform(0.02, 0.98) if phase == "relaying" else 1.0
    deadline = time.monotonic() + 600
    while True:
        stats = [server.stats() for server in servers]
        if sum(s["requests"] for s in stats) >= share * total and (
            share < 1 or not any(s["in_flight"] for s in stats)
        ):
            break
        assert process.poll() is None, f"the run ended too early: {rest_of(process)}"
        assert time.monotonic() < deadline, f"only {sum(s['requests'] for s in stats)} requests of {total}"
        time.sleep(0.005)
    if phase == "relaying":
        return f"at {requests_so_far(servers)} of {total} requests"
    if phase == "scoring":
        delay = draw.uniform(0, 0.8)  # storing, scoring and summarizing take longer than that
        time.sleep(delay)
        return f"{delay:.2f} s after the last answer"
    wanted = draw.uniform(0, 1) * total * len(gsm8k.FILTERS)  # scores come in batches
    with installation.documents() as documents:
        while (stored := documents.count(SCORES)) < wanted:
            assert process.poll() is None, f"the run ended too early: {rest_of(process)}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    return f"at {stored} stored scores"


def assert_nothing_half_written(installation: Installation, docs: int) -> None:
    """The stores hold whole things: all data of a task or none, all prompts or none, scores in pairs."""
    if installation.home.exists() or installation.environment:
        with installation.datasets() as datasets:
            registration = datasets.current(gsm8k.TASK)
            if registration is not None:
                assert len(list(datasets.docs(registration.task_hash))) == gsm8k.ALL
                assert len(datasets.fewshot(registration.task_hash)) == registration.n_fewshot == 7473
        with installation.documents() as documents:
            assert documents.count(PROMPTS) in (0, docs)
            assert registration is not None or documents.count(PROMPTS) == 0
            for row in documents.group(SCORES, Group(by=["supplier", "doc_id"])):
                assert row["count"] == len(gsm8k.FILTERS)


def assert_group_is_gone(group: int) -> None:
    """Neither the command nor its lm-eval worker outlives the kill."""
    deadline = time.monotonic() + 60
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "a process of the killed run is still there"
        time.sleep(0.02)


def assert_resent_within_bounds(server: Replay, before: int, killed_at: float) -> int:
    """Check every request after the kill that repeats an earlier one; return how many there were."""
    rows, durable_s = server.requests(), DURABLE_S * times_slower()
    earlier = {row["prompt_id"]: row for row in rows if row["n"] <= before}
    assert len(earlier) == before, "the first run asked something twice"
    resent = [row for row in rows if row["n"] > before and row["prompt_id"] in earlier]
    answered_late = in_flight = 0
    for row in earlier.values():
        ended = row["t"] + row["ms"] / 1000
        if row["outcome"] == "cancelled" or ended >= killed_at:
            in_flight += 1
        elif ended >= killed_at - durable_s:
            answered_late += 1
    for row in resent:
        first = earlier[row["prompt_id"]]
        ended = first["t"] + first["ms"] / 1000
        assert first["outcome"] == "cancelled" or ended >= killed_at - durable_s, (
            f"sent again although answered {killed_at - ended:.2f} s before the kill"
        )
    assert len(resent) <= in_flight + answered_late
    stats = server.stats()
    assert stats["duplicates"] == len(resent)
    answered = sum(earlier[row["prompt_id"]]["outcome"] == "hit" for row in resent)
    assert stats["duplicates_after_answer"] == answered
    assert stats["requests"] - before == len({r["prompt_id"] for r in rows if r["n"] > before})
    return len(resent)


def kill_and_resume(
    installation: Installation, answers: Answers, folder: Path, phase: str, draw: random.Random
) -> None:
    """The whole test for one instant."""
    recorded = [answers.gsm8k(system) for system in SYSTEMS]
    with replays(recorded, folder, "--latency-ms", "20", "--jitter-ms", "60") as servers:
        urls = {system: server.url for system, server in zip(SYSTEMS, servers, strict=True)}
        installation.configure(**gsm8k.settings(urls, DOCS, relays={"max_in_flight": 24, "total_s": 20}))
        process = installation.start("run")
        try:
            instant = wait_for_the_instant(process, installation, servers, phase, draw)
        finally:
            alive = process.poll() is None
            killed_at = time.time()
            kill_group(process)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        print(f"killed {instant} ({phase}; TESTBENCH_TEST_SEED={SEED})")
        assert alive, "the run ended before it was killed"
        assert_group_is_gone(process.pid)
        deadline = time.monotonic() + 10
        while any(server.stats()["in_flight"] for server in servers) and time.monotonic() < deadline:
            time.sleep(0.02)
        before = [server.stats()["requests"] for server in servers]
        assert_nothing_half_written(installation, DOCS)
        with installation.documents() as documents:
            kept = {c.name: documents.count(c) for c in (PROMPTS, ATTEMPTS, SCORES)}
        print(f"stored at the kill: {kept}")

        installation.run()
        resent = [
            assert_resent_within_bounds(server, n, killed_at)
            for server, n in zip(servers, before, strict=True)
        ]
        print(f"asked before the kill: {before}, sent again: {resent}")
        assert [s.stats()["requests"] for s in servers] == [DOCS + n for n in resent]
    assert_complete(installation, DOCS)


def assert_complete(installation: Installation, docs: int) -> None:
    """Every (supplier, doc, round) is answered and scored once, and the scores are the authors' flags."""
    rows = installation.scores()
    with installation.documents() as documents:
        per_doc = documents.group(SCORES, Group(by=["supplier", "doc_id", "round", "filter"]))
        assert {row["count"] for row in per_doc} == {1}
        assert {row["round"] for row in per_doc} == {1}
        assert len(per_doc) == len(SYSTEMS) * docs * len(gsm8k.FILTERS)
        answered = documents.group(ATTEMPTS, Group(by=["supplier", "doc_id"]), {"fault": "ok"})
        assert [row["count"] for row in answered] == [1] * (len(SYSTEMS) * docs)
        for system in SYSTEMS:
            truth, stored = gsm8k.flags(system), gsm8k.verdicts(documents, system)
            assert stored == {doc: truth[doc] for doc in stored}
            row = gsm8k.primary(rows, system)
            assert (row["n"], row["errors"], row["round"]) == (docs, {}, 1)
            assert row["score"] == pytest.approx(sum(stored.values()) / docs, abs=1e-12)
            if docs == gsm8k.ALL:
                assert sum(stored.values()) == {"6b_verification": 515, "175b_verification": 742}[system]


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_run_is_continued(
    phase: str, installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    kill_and_resume(installation, answers, tmp_path, phase, random.Random(f"{SEED}:{phase}"))


@pytest.mark.slow
def test_a_killed_run_is_continued_on_mongodb_and_postgresql(
    server_installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    draw = random.Random(f"{SEED}:servers")
    kill_and_resume(server_installation, answers, tmp_path, "relaying", draw)


@pytest.mark.slow
def test_a_run_killed_again_and_again_gets_done(
    installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    """Five kills in one run: what each leaves is enough for the next."""
    draw = random.Random(f"{SEED}:again")
    recorded = [answers.gsm8k(system) for system in SYSTEMS]
    with replays(recorded, tmp_path, "--latency-ms", "20", "--jitter-ms", "60") as servers:
        urls = {system: server.url for system, server in zip(SYSTEMS, servers, strict=True)}
        installation.configure(**gsm8k.settings(urls, relays={"max_in_flight": 24, "total_s": 20}))
        for _ in range(5):
            seen = requests_so_far(servers)
            process = installation.start("run")
            try:
                more = draw.randrange(50, 400)
                deadline = time.monotonic() + 600
                while requests_so_far(servers) < seen + more and process.poll() is None:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            finally:
                kill_group(process)
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
            assert_nothing_half_written(installation, gsm8k.ALL)
        installation.run()
    assert_complete(installation, gsm8k.ALL)
