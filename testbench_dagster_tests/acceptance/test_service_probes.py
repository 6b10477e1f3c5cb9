"""Service probes measure what is so, by set speeds and a real server's timings, and survive being killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median_low
from typing import Any

import pytest

from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.relay import Attempt, Endpoint, Limits
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.core.workloads import DueProbe
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.relay.probe import probe_relay
from testbench_dagster.stages.service.probe import probe_services
from testbench_dagster.stages.service.prompts import long_prompt
from testbench_dagster.stages.service.tokens import answer_tokens, cached_tokens
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests import llama
from testbench_dagster_tests.servers import ServerMissing
from testbench_dagster_tests.streaming import DONE, event, installation, serving, streams
from testbench_dagster_tests.tasks.layouts import REPOSITORY

pytestmark = pytest.mark.slow

#: Milliseconds to the first token, tokens a second: an ordinary server, a slow one, a very fast one.
SPEEDS = {"ordinary": (120.0, 80.0), "slow": (600.0, 25.0), "fast": (15.0, 700.0)}
PROBES, ROUNDS = 7, 4
REAL_PROBES = 5


def stored(workspace: Workspace, supplier: str, workload: str = "short") -> list[ServiceProbeRecord]:
    where = {"supplier": supplier, "workload": workload}
    return list(typed.find(workspace.documents, ServiceProbeRecord, where))


def speed_of(one: ServiceProbeRecord) -> float:
    """Tokens a second after the first one."""
    assert one.tokens_after_first and one.first_token_ms is not None and one.last_token_ms is not None
    return one.tokens_after_first / (one.last_token_ms - one.first_token_ms) * 1000


def within(value: float, truth: float, share: float, least: float = 0.0) -> bool:
    return abs(value - truth) <= max(share * truth, least)


@pytest.fixture(scope="module")
def localnet() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=1) as net:
        for name, (first, rate) in SPEEDS.items():
            net.join(name)
            net.speed(name, first, rate)
        yield net


@pytest.mark.parametrize("name", SPEEDS)
@pytest.mark.parametrize("manners", ["plain", "no_usage", "reasoning"])
def test_set_speeds_are_found(
    tmp_path: Path, localnet: LocalnetProcess, name: str, manners: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The median lies within 5 %, or 5 ms, of what is set.

    In one of some rounds: on a busy machine answers are late, and that is measured, too.
    """
    first_ms, rate = SPEEDS[name]
    localnet.manners(name, manners)
    (told,) = [one for one in localnet.roster() if one["address"] == name]
    own = {name: {"model": told["model"], "generation": {"budget": 40 if manners == "reasoning" else 0}}}
    settings = {"service_probes": {"answer_tokens": 60}}
    key, rounds = f"{name}@external", []
    with installation(tmp_path, {name: told["base_url"]}, own, **settings) as workspace:
        while len(rounds) < ROUNDS and not any(map(all, rounds)):
            before = {one.id for one in stored(workspace, key)}
            probe_services(workspace, [DueProbe(key, "short")] * PROBES)
            found = [one for one in stored(workspace, key) if one.id not in before]
            assert len(found) == PROBES
            first = median_low(one.first_token_ms or 0 for one in found)
            speed = median_low(map(speed_of, found))
            with capsys.disabled():
                print(
                    f"\n{name}, {manners}: {first:.1f} of {first_ms} ms, {speed:.1f} of {rate} a second",
                    end=" ",
                )
            assert {one.tokens_source for one in found} == {"estimated" if manners == "no_usage" else "usage"}
            # bytes by four are no count of this server's tokens
            rounds.append(
                (within(first, first_ms, 0.05, 5), manners == "no_usage" or within(speed, rate, 0.05))
            )
    assert any(map(all, rounds))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("llama")
    try:
        model = llama.write_model(folder / "tiny.gguf", context=8_192)
    except ServerMissing as missing:  # also in CI: there are not wheels for every platform
        pytest.skip(str(missing))
    with llama.serving(folder, model, 8_192) as url:
        yield url


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_real_server_agrees(server: str, api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Of llama.cpp, by what it says of its own timing at the end of each stream: within 15 %."""
    target = Endpoint("tiny@test", "test", server, api, "tiny", Limits())
    target = replace(target, generation=SupplierGeneration(stop="client"))
    firsts, speeds = [], []
    for attempt, watch in sent(target, 1_000, 200, REAL_PROBES):
        assert attempt.fault.answered, attempt.error
        (told,) = [
            json.loads(line[6:])["timings"] for line in attempt.body.splitlines() if b'"timings"' in line
        ]
        tokens = answer_tokens(attempt, watch, 200)
        assert (tokens.source, tokens.completion) == ("usage", told["predicted_n"])
        assert attempt.prompt_tokens == told["prompt_n"] + told["cache_n"]
        assert cached_tokens(watch.told_usage) == told["cache_n"] < 16, "the nonce keeps caches out"
        assert tokens.after_first and watch.first_token_ms and watch.last_token_ms
        took_s = (watch.last_token_ms - watch.first_token_ms) / 1000
        firsts.append(watch.first_token_ms / told["prompt_ms"])
        speeds.append(tokens.after_first / took_s / told["predicted_per_second"])
    with capsys.disabled():
        print(f"\n{api}: first token {sorted(firsts)}, speed {sorted(speeds)} of its own", end=" ")
    assert within(median_low(firsts), 1, 0.15)
    assert within(median_low(speeds), 1, 0.15)


def sent(target: Endpoint, tokens: int, limit: int, times: int) -> list[tuple[Attempt, StreamWatch]]:
    """What comes of prompts of so many tokens, one after the other, each over a connection of its own."""

    async def one(seed: int) -> tuple[Attempt, StreamWatch]:
        transport, watch = DirectTransport(), StreamWatch()
        relay = probe_relay(target, long_prompt(tokens, limit, Random(seed)).request(target.api))
        try:
            return await transport.send(target, replace(relay, watch=watch)), watch
        finally:
            await transport.close()

    return [asyncio.run(one(seed)) for seed in range(times)]


def test_a_real_context(tmp_path: Path, server: str) -> None:
    """It takes as long a prompt as it lists, by its own count; what a random model answers finds nothing."""
    with installation(tmp_path, {"a": server}, {"a": {"model": "tiny"}}) as workspace:
        probe_services(workspace, [DueProbe("a@external", name) for name in ("short", "1k", "context")])
        (one,) = stored(workspace, "a@external", "context")
    assert (one.found, one.owner) == (False, "none"), one.error
    assert one.evidence["context"] == {"tokens": 8_192, "source": "listed"}
    assert one.prompt_tokens is not None and 0.85 * 8_192 < one.prompt_tokens < 0.95 * 8_192


KILLED = """
import sys, threading
from testbench_dagster.core.workloads import DueProbe
from testbench_dagster.stages.relay.probe import probe_relay
from testbench_dagster.stages.service.probe import probe_services
from testbench_dagster.stages.service.prompts import long_prompt
from testbench_dagster.stages.service.tokens import answer_tokens, cached_tokens
from testbench_dagster.stages.workspace import Workspace

with Workspace.open(sys.argv[1]) as workspace:
    due = [DueProbe(f"{name}@external", "short") for name in sys.argv[2:] for _ in range(200)]
    print("begun", flush=True)
    probe_services(workspace, due)
"""


def test_a_killed_run_loses_what_was_in_flight_and_no_more(tmp_path: Path) -> None:
    async def answer(_: dict[str, Any]) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.02)
        yield event({"content": "some words "})
        yield event({"content": "and some more"}, "stop")
        yield DONE

    hosts = 4
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving({"a": streams(answer)})) for _ in range(hosts)]
        urls = {f"s{number}": f"{server.url}/a/v1" for number, server in enumerate(servers)}
        workspace = stack.enter_context(installation(tmp_path, urls))
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(workspace.config.path), *urls],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        try:
            give_up = time.monotonic() + 60
            while min(len(server.asked["a"]) for server in servers) < 10:
                assert process.poll() is None and time.monotonic() < give_up
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
        for number, server in enumerate(servers):
            kept = len(stored(workspace, f"s{number}@external"))
            assert len(server.asked["a"]) - 1 <= kept <= len(server.asked["a"])
        # what the dead process held is taken from it
        again = probe_services(workspace, [DueProbe("s0@external", "short")])
        assert (again.answered, again.held) == (1, {})
