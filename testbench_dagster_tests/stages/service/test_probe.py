"""Probing suppliers: what is asked, what is stored of it, and what nothing else of ours does meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.quota import FixedQuota
from testbench_dagster.core.records.coordination import HeartbeatRecord, LeaseRecord
from testbench_dagster.core.records.every import RECORDS
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.workloads import LONG_ANSWER, DueProbe
from testbench_dagster.localnet.manners import MANNERS
from testbench_dagster.localnet.personas import Backend, Context, Persona
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.plan.remaining import money_left, money_quota
from testbench_dagster.stages.service import probe as probing
from testbench_dagster.stages.service.probe import ServiceProbeReport, probe_services
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.streaming import (
    DONE,
    Server,
    Way,
    answers,
    event,
    installation,
    says,
    serving,
    streams,
    usage,
)
from testbench_dagster_tests.tasks.signatures.simulated import evaluated, installed, served

WORDS = ("one ", "two ", "three ", "four ")
ANSWER = (
    event({"role": "assistant", "content": ""}),
    *(event({"content": word}) for word in WORDS),
    event({}, "length"),
)
GOOD = (*ANSWER, usage(90, 5), DONE)
PLAIN = {
    "choices": [{"index": 0, "message": {"content": "four words in all"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 90, "completion_tokens": 4, "prompt_cache_hit_tokens": 64},
}


def due(*workloads: str, suppliers: tuple[str, ...] = ("a@external",)) -> list[DueProbe]:
    return [DueProbe(key, workload) for key in suppliers for workload in workloads or ("short",)]


def stored(workspace: Workspace) -> list[ServiceProbeRecord]:
    """All attempts, in the order in which they were made."""
    return list(typed.find(workspace.documents, ServiceProbeRecord, sort=[("started_at", 1)]))


def came_later(one: ServiceProbeRecord, most: int) -> bool:
    """Whether so many tokens came behind the first, or fewer: a busy machine reads several pieces at once."""
    return one.tokens_after_first is None or 0 <= one.tokens_after_first <= most


@contextmanager
def beside(folder: Path, ways: Mapping[str, Way]) -> Iterator[tuple[Workspace, Server]]:
    """An installation over suppliers that share a host."""
    with serving(ways) as server:
        urls = {name: f"{server.url}/{name}/v1" for name in ways}
        with installation(folder, urls) as workspace:
            yield workspace, server


def probed(
    folder: Path,
    way: Way,
    *workloads: str,
    own: Mapping[str, Any] | None = None,
    models: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[list[ServiceProbeRecord], Server, ServiceProbeReport]:
    """What is stored of one supplier that answers so."""
    with serving({"a": way}, {"a": models or {}}) as server:
        urls = {"a": f"{server.url}/a/v1"}
        with installation(folder, urls, {"a": own or {}}, **settings) as workspace:
            report = probe_services(workspace, due(*workloads))
            return stored(workspace), server, report


# ------------------------------------------------------------------------------------------ one attempt


def test_what_is_stored_of_an_answer(tmp_path: Path) -> None:
    (one,), server, report = probed(tmp_path, says(*GOOD))
    assert (one.supplier, one.service, one.workload) == ("a@external", "external", "short")
    assert (one.fault, one.owner, one.status, one.error) == ("truncated", "none", 200, None)
    assert (one.streamed, one.events, one.own_in_flight, one.left_out) == (True, 7, 1, [])
    times = [one.connect_ms, one.first_event_ms, one.first_token_ms, one.last_token_ms, one.ended_ms]
    assert None not in times and times == sorted(times)  # type: ignore[type-var]
    assert one.first_answer_ms == one.first_token_ms and one.connection_reused is False
    assert (one.prompt_tokens, one.completion_tokens, one.tokens_source) == (90, 5, "usage")
    assert came_later(one, 4)  # of 19 bytes 15 came later
    assert one.text == "".join(WORDS) and one.finish_reason == "length"
    assert one.text_sha256 == hashlib.sha256(one.text.encode()).hexdigest()
    assert one.started_at < one.finished_at
    assert (report.due, report.done, report.attempts, report.answered) == (1, 1, 1, 1)
    (asked,) = server.asked["a"]
    (message,) = asked["messages"]
    assert one.sent_tokens == pytest.approx(len(message["content"]) / 4, abs=1)
    assert asked | {"messages": []} == {
        "messages": [],
        "model": "m",
        "max_tokens": 300,
        "temperature": 0,
        "seed": 1234,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_prompts_are_new_from_the_first_token_on_and_as_long_as_they_should_be(tmp_path: Path) -> None:
    found, server, _ = probed(tmp_path, says(*GOOD), "short", "1k", "10k", "short")
    texts = [asked["messages"][0]["content"] for asked in server.asked["a"]]
    assert len({text[:8] for text in texts}) == 4
    assert all(LONG_ANSWER in text for text in texts)
    for one, tokens in zip(found, (100, 1_000, 10_000, 100), strict=True):
        # whole sentences, of some 20 tokens each
        assert one.sent_tokens == pytest.approx(tokens, rel=0.2, abs=30)
    assert [one.connection_reused for one in found] == [False, True, True, True]


def test_a_supplier_is_asked_as_its_settings_say(tmp_path: Path) -> None:
    generation = {"token_field": "max_completion_tokens", "budget": 1_000, "temperature": "omit", "seed": 3}
    own = {"generation": {**generation, "effort": "low"}, "api": "completions"}
    _, server, _ = probed(tmp_path, says(*GOOD), own=own, service_probes={"answer_tokens": 40})
    (asked,) = server.asked["a"]
    assert asked.pop("prompt").endswith("Story:\n")
    assert asked.pop("stream") and asked.pop("stream_options")
    assert asked == {"model": "m", "max_completion_tokens": 1_040, "seed": 3, "reasoning_effort": "low"}


MISTRAL = {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}]}
AZURE = {"error": {"message": "Unrecognized request argument supplied: stream_options", "param": None}}
O1 = {"error": {"message": "Unsupported value: 'stream' does not support true.", "param": "stream"}}


def refusing(refusal: dict[str, Any], status: int, *options: str, otherwise: Way) -> Way:
    """Refuse requests that have one of these options."""

    async def way(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if set(options) & asked.keys():
            return web.json_response(refusal, status=status)
        return await otherwise(request, asked)

    return way


@pytest.mark.parametrize(("refusal", "status"), [(MISTRAL, 422), (AZURE, 400), (AZURE, 500)])
def test_where_the_count_is_refused_the_stream_is_asked_for_without(
    tmp_path: Path, refusal: dict[str, Any], status: int
) -> None:
    way = refusing(refusal, status, "stream_options", otherwise=says(*ANSWER, DONE))
    (refused, one, other), server, report = probed(tmp_path, way, "short", "1k")
    assert (refused.fault, refused.owner, refused.left_out) == ("client_request", "client", [])
    assert refused.error is not None and "stream_options" in refused.error and refused.status == status
    for found in (one, other):
        assert (found.fault, found.streamed, found.left_out) == ("truncated", True, ["stream_options"])
        assert (found.completion_tokens, found.tokens_source) == (5, "estimated")  # of 19 bytes
    assert [asked.get("stream_options") is None for asked in server.asked["a"]] == [False, True, True]
    assert (report.done, report.attempts) == (2, 3)


def test_where_streams_are_refused_answers_are_asked_for_plainly(tmp_path: Path) -> None:
    way = refusing(O1, 400, "stream", otherwise=answers(**PLAIN))
    (refused, one, other), server, _ = probed(tmp_path, way, "short", "1k")
    assert (refused.fault, refused.owner) == ("client_request", "client")
    for found in (one, other):
        assert (found.fault, found.streamed, found.left_out) == ("ok", False, ["stream"])
        assert (found.first_token_ms, found.last_token_ms, found.events) == (None, None, None)
        assert (found.completion_tokens, found.tokens_source, found.tokens_after_first) == (4, "usage", None)
        assert found.cached_tokens == 64 and found.ended_ms > 0 and found.text == "four words in all"
    assert ["stream" in asked for asked in server.asked["a"]] == [True, False, False]


def test_one_option_after_the_other_may_be_refused(tmp_path: Path) -> None:
    way = refusing(
        MISTRAL, 422, "stream_options", otherwise=refusing(O1, 400, "stream", otherwise=answers(**PLAIN))
    )
    found, _, _ = probed(tmp_path, way)
    assert [(one.fault, one.left_out) for one in found] == [
        ("client_request", []),
        ("client_request", ["stream_options"]),
        ("ok", ["stream"]),
    ]


@pytest.mark.parametrize(
    ("status", "said", "fault"),
    [
        (400, {"error": {"message": "no"}}, "client_request"),
        (500, {"error": {"message": "the stream of events broke"}}, "supplier_http"),
        (503, {"error": {"message": "stream is not supported"}}, "unavailable"),
    ],
)
def test_other_refusals_are_what_they_are(
    tmp_path: Path, status: int, said: dict[str, Any], fault: str
) -> None:
    (one,), _, _ = probed(tmp_path, answers(status, **said))
    assert one.fault == fault


def test_a_broken_stream_is_no_refusal_whatever_it_holds(tmp_path: Path) -> None:
    text = "unsupported parameter: 'stream' is not supported"
    (one,), _, _ = probed(tmp_path, says(event({"content": text}), event({"content": "x"})))
    assert (one.fault, one.owner, one.streamed) == ("supplier_protocol", "supplier", True)
    assert one.text == f"{text}x" and one.first_token_ms is not None
    assert (one.completion_tokens, one.tokens_source) == (13, "estimated")


def test_a_connection_that_breaks_off(tmp_path: Path) -> None:
    async def half(_: dict[str, Any]) -> AsyncIterator[bytes]:
        yield event({"content": "half"})
        await asyncio.sleep(0.02)
        raise RuntimeError

    (one,), _, _ = probed(tmp_path, streams(half))
    assert (one.fault, one.owner, one.text) == ("supplier_protocol", "supplier", "half")


def test_a_connection_that_was_closed_meanwhile_is_no_fault(tmp_path: Path) -> None:
    """A server that answers once per connection, and does not say so: llama.cpp's is one."""
    used = set()

    async def once(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        if peer in used:
            request.transport.abort()
        used.add(peer)
        return await says(*GOOD)(request, asked)

    found, server, report = probed(tmp_path, once, "short", "1k")
    assert [(one.fault, one.connection_reused) for one in found] == [("truncated", False)] * 2
    assert len(server.asked["a"]) == 3 and report.attempts == 2


def test_plain_json_in_place_of_a_stream(tmp_path: Path) -> None:
    (one,), _, _ = probed(tmp_path, answers(**PLAIN))
    assert (one.fault, one.streamed, one.left_out, one.first_event_ms) == ("ok", False, [], None)
    assert (one.completion_tokens, one.tokens_source) == (4, "usage")


@pytest.mark.parametrize("told", [None, usage(90, -5), usage(90, 10**15), usage(90, 0), usage(90, "many")])
def test_no_count_or_none_that_can_be_is_estimated(tmp_path: Path, told: bytes | None) -> None:
    (one,), _, _ = probed(tmp_path, says(*ANSWER, *([] if told is None else [told]), DONE))
    assert (one.completion_tokens, one.tokens_source) == (5, "estimated") and came_later(one, 4)


def test_a_count_that_cannot_be_is_not_believed(tmp_path: Path) -> None:
    """More tokens than bytes: who counts so would look fast."""
    (one,), _, _ = probed(tmp_path, says(*ANSWER, usage(90, 280), DONE))
    assert (one.completion_tokens, one.tokens_source) == (5, "estimated")
    assert one.evidence["disbelieved_tokens"] == 280


def test_a_whole_answer_in_one_event_has_no_speed(tmp_path: Path) -> None:
    (one,), _, _ = probed(tmp_path, says(event({"content": "all of it"}, "stop"), usage(90, 3), DONE))
    assert one.streamed and one.first_token_ms == one.last_token_ms
    assert (one.completion_tokens, one.tokens_after_first) == (3, None)


@pytest.mark.slow
def test_a_megabyte_of_nothing_first(tmp_path: Path) -> None:
    """It is read, up to more than any answer of that length takes."""
    (one,), _, _ = probed(tmp_path, says(b": \n\n" * 262_144, event({"content": " "}), *GOOD))
    assert (one.fault, one.completion_tokens, one.events) == ("truncated", 5, 8)
    assert one.first_token_ms is not None
    (tmp_path / "2").mkdir()
    (other,), _, _ = probed(tmp_path / "2", says(b": \n\n" * 600_000, *GOOD))
    assert (other.fault, other.owner, other.first_token_ms) == ("supplier_protocol", "supplier", None)


def test_thoughts_are_tokens_and_told_apart(tmp_path: Path) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 2}}
    pieces = (event({"reasoning": "so be it"}), *GOOD[:-2], usage(90, 7, **details), DONE)
    (one,), _, _ = probed(tmp_path, says(*pieces))
    assert one.first_token_ms is not None and one.first_answer_ms is not None
    assert one.first_token_ms < one.first_answer_ms
    assert (one.completion_tokens, one.reasoning_tokens) == (7, 2) and came_later(one, 5)


# ------------------------------------------------------------------------------------------ who is asked


def test_one_request_at_a_time_goes_to_a_host(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    with beside(tmp_path, dict.fromkeys(names, says(*GOOD))) as (workspace, server):
        keys = tuple(f"{name}@external" for name in names)
        report = probe_services(workspace, due("short", "1k", suppliers=keys))
        assert (server.most_in_flight, report.done) == (1, 6)
        assert {one.own_in_flight for one in stored(workspace)} == {1}


def test_hosts_are_asked_beside_each_other(tmp_path: Path) -> None:
    """Each of two servers answers once the other one was asked, too."""
    both = threading.Barrier(2)

    async def meet(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        await asyncio.to_thread(both.wait, 10)
        return await says(*GOOD)(request, asked)

    with serving({"a": meet}) as one, serving({"b": meet}) as other:
        urls = {"a": f"{one.url}/a/v1", "b": f"{other.url}/b/v1"}
        with installation(tmp_path, urls) as workspace:
            report = probe_services(workspace, due(suppliers=("a@external", "b@external")))
            assert report.answered == 2


@contextmanager
def other_process(folder: Path, way: Way) -> Iterator[tuple[Workspace, Server, SupplierLeases]]:
    """Suppliers ``a``, which answers so, and ``b`` on one host, and the leases of somebody else."""
    with (
        beside(folder, {"a": way, "b": says(*GOOD)}) as (workspace, server),
        Heartbeat(workspace.documents, "other") as beat,
        SupplierLeases(workspace.documents, beat) as leases,
    ):
        yield workspace, server, leases


@pytest.mark.parametrize("other", ["a@external", "b@external"])
def test_who_is_relayed_to_is_left_alone_and_whoever_shares_its_host(tmp_path: Path, other: str) -> None:
    with other_process(tmp_path, says(*GOOD)) as (workspace, server, leases):
        assert leases.acquire([other]).held
        report = probe_services(workspace, due())
        assert list(report.held) == ["a@external"] and "relay" in report.held["a@external"]
        assert (report.done, server.asked["a"]) == (0, [])
        leases.release()
        assert probe_services(workspace, due()).held == {}
        assert typed.count(workspace.documents, LeaseRecord) == 1  # the counter


def test_who_began_beside_a_probe_is_noted(tmp_path: Path) -> None:
    taken = threading.Event()

    async def meanwhile(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        await asyncio.to_thread(taken.wait, 10)
        return await says(*GOOD)(request, asked)

    with other_process(tmp_path, meanwhile) as (workspace, server, leases):

        def take() -> None:
            while not server.asked["a"]:
                taken.wait(0.01)
            leases.acquire(["b@external"])
            taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        probe_services(workspace, due())
        thread.join(10)
        assert [one.own_in_flight for one in stored(workspace)] == [2]


def test_who_cannot_be_asked_is_said(tmp_path: Path) -> None:
    with beside(tmp_path, {"a": says(*GOOD)}) as (workspace, _):
        report = probe_services(workspace, due(suppliers=("nobody@external",)))
        assert list(report.problems) == ["nobody@external"] and report.attempts == 0
        with pytest.raises(ValueError, match="'100k' is no workload; use some of short"):
            probe_services(workspace, due("100k"))
        assert probe_services(workspace, []).due == 0


# ------------------------------------------------------------------------------------------ bounds


def test_the_budget_bounds_attempts(tmp_path: Path) -> None:
    with beside(tmp_path, {"a": says(*GOOD)}) as (workspace, server):
        quota = FixedQuota({"external": 2})
        report = probe_services(workspace, due("short", "1k", "10k"), quota=quota)
        assert (report.done, report.put_off) == (2, {"a@external": "the budget is used up"})
        assert len(server.asked["a"]) == 2


def test_the_budget_of_money_bounds_them_and_pays_for_them(tmp_path: Path) -> None:
    own = {"a": {"price": {"prompt": 1.0, "completion": 100.0}}}  # 0.03 and more for the longest answer
    with serving({"a": says(*GOOD)}) as server:
        urls = {"a": f"{server.url}/a/v1"}
        with installation(tmp_path, urls, own, budget={"money_per_day": 0.05}) as workspace:
            money = money_quota(workspace, ["a@external"])
            assert money is not None
            report = probe_services(workspace, due("short", "1k"), money=money)
            money.close()
            assert (report.done, report.put_off) == (2, {})
            left = money_left(workspace, "external", datetime.now(UTC))
            assert left is not None and left.spent == 2 * (90 * 1 + 5 * 100)  # what they came to
        with installation(tmp_path, urls, own, budget={"money_per_day": 0.02}) as workspace:
            money = money_quota(workspace, ["a@external"])
            report = probe_services(workspace, due("short"), money=money)
            assert report.put_off == {"a@external": "the budget of money does not reach to it"}
        assert len(server.asked["a"]) == 2


def test_a_pace_bounds_them_too(tmp_path: Path) -> None:
    own = {"pace": {"requests_per_day": 1}}
    found, _, report = probed(tmp_path, says(*GOOD), "short", "1k", own=own)
    assert (len(found), report.done) == (1, 1)
    assert "its pace of 1 requests a day is used up" in report.put_off["a@external"]


def test_after_a_rate_limit_nothing_more_is_asked_now(tmp_path: Path) -> None:
    found, _, report = probed(tmp_path, answers(429, error={"message": "slowly"}), "short", "1k")
    assert [(one.fault, one.owner) for one in found] == [("rate_limited", "network")]
    assert report.put_off["a@external"].startswith("rate_limited")


def test_who_is_down_is_asked_each_workload_once(tmp_path: Path) -> None:
    with installation(tmp_path, {"a": "http://127.0.0.1:1/v1"}) as workspace:
        probe_services(workspace, due("short", "1k"))
        assert [(one.fault, one.owner, one.status) for one in stored(workspace)] == [
            ("transport", "network", None)
        ] * 2


def test_whoever_is_told_to_stop_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "STOP_GRACE_S", 0.05)
    stop = threading.Event()

    async def for_ever(_: dict[str, Any]) -> AsyncIterator[bytes]:
        while True:
            yield event({"content": "on and "})
            stop.set()
            await asyncio.sleep(0.01)

    with beside(tmp_path, {"a": streams(for_ever)}) as (workspace, _):
        workspace.stop = stop
        report = probe_services(workspace, due("short", "1k"))
        assert report.interrupted and (report.done, stored(workspace)) == (0, [])
        assert typed.count(workspace.documents, LeaseRecord) == 1
        assert typed.count(workspace.documents, HeartbeatRecord) == 0


def test_whoever_lost_its_heartbeat_probes_no_more(tmp_path: Path) -> None:
    with beside(tmp_path, {"a": says(*GOOD)}) as (workspace, server):
        heartbeat = Heartbeat(workspace.documents, "dead")
        with heartbeat:
            pass
        workspace.heartbeat = heartbeat
        with pytest.raises(StoreError):
            probe_services(workspace, due())
        assert server.asked["a"] == []


def test_progress_is_told(tmp_path: Path) -> None:
    with beside(tmp_path, {"a": says(*GOOD)}) as (workspace, _):
        told: list[probing.ServiceProbeProgress] = []
        probe_services(workspace, due("short", "1k"), on_progress=told.append)
        assert (told[-1].due, told[-1].done, told[-1].stored, told[-1].in_flight) == (2, 2, 2, 0)


# ------------------------------------------------------------------------------------------ contexts

BACKEND = Backend("b", 0.7, latency_ms=0)


def contexts(folder: Path, context: Context, *workloads: str, **own: Any) -> list[ServiceProbeRecord]:
    tasks = [{"name": "starter_units", "samples": 2}]
    with (
        served([Persona("a", BACKEND, context=context)]) as net,
        installed(folder, net, tasks, limits={"a": own}) as workspace,
    ):
        refresh_roster(workspace)
        probe_services(workspace, due(*workloads, suppliers=("a@simulation",)))
        return [one for one in stored(workspace) if one.workload == "context"]


@pytest.mark.parametrize(
    ("context", "fault", "owner", "found"),
    [
        (Context(lists=4_000), "ok", "none", True),
        (Context(lists=4_000, tokens=4_000), "ok", "none", True),
        (Context(lists=4_000, tokens=1_500, forgets=True), "ok", "none", False),
        # it counts prompts, and so this one fits into what it lists
        (Context(lists=4_000, tokens=1_500), "supplier_refused", "supplier", False),
    ],
)
def test_a_context_that_is_listed(
    tmp_path: Path, context: Context, fault: str, owner: str, found: bool
) -> None:
    (one,) = contexts(tmp_path, context, "1k", "context")
    assert (one.fault, one.owner, one.found) == (fault, owner, found)
    assert one.evidence["context"] == {"tokens": 4_000, "source": "listed"}
    if one.prompt_tokens is not None and not context.forgets:
        assert 3_400 < one.prompt_tokens <= 3_600  # nine tenths, by its own count


def test_a_refusal_of_what_nobody_claimed_is_not_blamed(tmp_path: Path) -> None:
    context = Context(tokens=1_000)
    (one,) = contexts(tmp_path, context, "1k", "context", context_tokens=4_000)
    assert (one.fault, one.owner, one.found) == ("client_request", "client", None)
    assert one.error is not None and "context_tokens says 4,000" in one.error
    # it lists so many, but how it counts is not known yet
    (tmp_path / "2").mkdir()
    (other,) = contexts(tmp_path / "2", Context(lists=4_000, tokens=1_000), "context")
    assert (other.fault, other.owner, other.found) == ("client_request", "client", None)


def test_without_a_context_nothing_is_sent(tmp_path: Path) -> None:
    (one,) = contexts(tmp_path, Context(), "context")
    assert (one.fault, one.owner, one.found, one.status) == ("client_request", "client", None, None)
    assert one.error is not None and "context_tokens" in one.error


def test_an_operators_word_goes_before_the_list(tmp_path: Path) -> None:
    (one,), server, _ = probed(
        tmp_path, says(*GOOD), "context", own={"context_tokens": 500}, models={"context_length": 9_000}
    )
    assert one.evidence["context"] == {"tokens": 500, "source": "configured"} and one.found is False
    assert not server.listed and one.sent_tokens == pytest.approx(436, rel=0.1)


# ------------------------------------------------------------------------------------------ all the rest


@pytest.mark.slow
def test_probes_change_nothing_but_their_own_records(tmp_path: Path) -> None:
    """Windows, scores, identity: every other document is what it was."""
    personas = [Persona("a", BACKEND), Persona("b", BACKEND, manners=MANNERS["no_usage"])]
    tasks = [{"name": "starter_units", "samples": 4}]
    with served(personas) as net, installed(tmp_path, net, tasks) as workspace:
        evaluated(workspace)

        def everything() -> dict[str, list[str]]:
            skipped = {"service_probes", "leases", "heartbeats", "paces"}
            return {
                of.collection.name: sorted(map(repr, typed.whole(workspace.documents, of)))
                for of in RECORDS
                if of.collection.name not in skipped
            }

        before = everything()
        keys = ("a@simulation", "b@simulation")
        report = probe_services(workspace, due("short", "1k", "context", suppliers=keys))
        assert report.answered == 4 and len(stored(workspace)) == 6
        assert everything() == before
        assert any(before["attempts"]) and any(before["windows"])
