"""Relays that are streamed and watched, over every transport; all others are sent as ever."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint, Transport
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.localnet.personas import Backend, Persona, Speed
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.path.transport import PathTransport
from testbench_dagster.transports.payload import as_stream, build_payload
from testbench_dagster_tests.endpoints import FAST, endpoint, relay
from testbench_dagster_tests.streaming import DONE, Way, answers, event, says, serving, streams, usage
from testbench_dagster_tests.transports import odd
from testbench_dagster_tests.transports.path.test_transport import NAMED, TOKEN
from testbench_dagster_tests.transports.path.test_transport import endpoint as gateway_endpoint
from testbench_dagster_tests.transports.pocket.net import relay_to, setting

ANSWER = (
    event({"role": "assistant"}),
    event({"reasoning": "so"}),
    event({"content": "yes"}, "stop"),
    usage(9, 2),
    DONE,
)
TOLD = {"choices": [{"index": 0, "message": {"content": "plain"}, "finish_reason": "stop"}]}


def send(opened: Transport, target: Endpoint, watches: Sequence[StreamWatch | None]) -> list[Attempt]:
    """Send a relay per watch, one after the other, and close the transport."""

    async def main() -> list[Attempt]:
        try:
            return [await opened.send(target, replace(relay(), watch=watch)) for watch in watches]
        finally:
            await opened.close()

    return asyncio.run(main())


def asked_of(way: Way, *watches: StreamWatch | None) -> tuple[list[Attempt], list[bytes]]:
    """What comes of relays to a server that answers so, and the bodies it was sent."""
    with serving({"a": way}) as server:
        attempts = send(DirectTransport(), endpoint(f"{server.url}/a/v1"), watches)
        return attempts, server.bodies["a"]


def test_a_watched_relay_tells_of_connection_and_text() -> None:
    first, again = StreamWatch(), StreamWatch()
    (attempt, _), bodies = asked_of(says(*ANSWER), first, again)
    assert (attempt.fault, attempt.text, attempt.completion_tokens) == (Fault.OK, "yes", 2)
    _, payload = build_payload(relay().request, "chat", "m")
    assert bodies == [orjson.dumps(as_stream(payload))] * 2
    assert attempt.evidence["payload_sha256"] == hashlib.sha256(bodies[0]).hexdigest()
    assert (first.connection_reused, again.connection_reused) == (False, True)
    assert first.connect_ms is not None and first.connect_ms > 0 and again.connect_ms == 0
    for watch in (first, again):
        times = (watch.first_event_ms, watch.first_token_ms, watch.first_answer_ms, watch.last_token_ms)
        assert None not in times and list(times) == sorted(times)  # type: ignore[type-var]
        assert watch.first_token_ms != watch.first_answer_ms
        assert (watch.events, watch.thought_bytes, watch.shown_bytes) == (4, 2, 5)
        assert watch.told_usage == {"prompt_tokens": 9, "completion_tokens": 2}


def test_without_a_watch_not_a_byte_is_another() -> None:
    _, payload = build_payload(relay().request, "chat", "m")
    attempts, bodies = asked_of(answers(**TOLD), None, StreamWatch(stream=False), None)
    assert bodies == [orjson.dumps(payload)] * 3
    assert {attempt.evidence["payload_sha256"] for attempt in attempts} == {
        hashlib.sha256(bodies[0]).hexdigest()
    }


def test_a_stream_is_asked_for_without_its_options() -> None:
    _, (body,) = asked_of(says(*ANSWER), StreamWatch(usage=False))
    _, payload = build_payload(relay().request, "chat", "m")
    assert orjson.loads(body) == {**payload, "stream": True}


def test_plain_json_in_place_of_a_stream() -> None:
    watch = StreamWatch()
    (attempt,), _ = asked_of(answers(**TOLD), watch)
    assert (attempt.fault, attempt.text) == (Fault.OK, "plain")
    assert (watch.events, watch.first_token_ms, watch.told_usage) == (0, None, None)
    assert watch.connect_ms is not None


def test_nobody_there_means_no_connection() -> None:
    watch = StreamWatch()
    (attempt,) = send(DirectTransport(), endpoint("http://127.0.0.1:1/v1"), [watch])
    assert attempt.fault is Fault.TRANSPORT
    assert watch == StreamWatch()


def test_through_a_gateway() -> None:
    """It names who answered before the first event."""
    with serving({"v1": says(*ANSWER, headers=NAMED)}) as server:
        target = gateway_endpoint(f"{server.url}/v1", headers={"Authorization": f"Bearer {TOKEN}"})
        watch = StreamWatch()
        (attempt,) = send(PathTransport(), target, [watch])
        (asked,) = server.asked["v1"]
    assert asked["stream"] is True and asked["stream_options"] == {"include_usage": True}
    assert (attempt.fault, attempt.text) == (Fault.OK, "yes")
    assert watch.first_token_ms is not None and watch.connection_reused is False


@pytest.mark.parametrize(("flavour", "arrivals"), [("ha", 2), ("classic", 1)])
def test_through_a_relay_miner(flavour: str, arrivals: int) -> None:
    """One that passes on what comes, and one that waits for the end."""
    speed = Speed(first_token_ms=30, tokens_per_s=80)
    people = [Persona("sim-01", Backend("granite", latency_ms=0), speed=speed)]

    async def body() -> None:
        async with setting(flavour, people=people) as s:
            target = s.endpoint()
            seen = []
            for number in range(2):
                watch = StreamWatch()
                sent = replace(relay_to(target, number), watch=watch)
                attempt = await s.transport.send(target, sent)
                assert attempt.fault is Fault.OK
                seen.append(watch)
            plain = await s.transport.send(
                replace(target, stream=True), replace(relay_to(target, 3), watch=StreamWatch(stream=False))
            )
            assert not plain.body.startswith(b"data:")
            for watch in seen:
                assert watch.first_token_ms is not None and watch.last_token_ms is not None
                assert min(watch.arrivals, 2) == arrivals
                assert watch.told_usage is not None
            assert [watch.connection_reused for watch in seen] == [False, flavour == "ha"]

    asyncio.run(asyncio.wait_for(body(), 60))


async def for_ever(_: dict[str, Any]) -> AsyncIterator[bytes]:
    while True:
        yield event({"content": "on and "})
        await asyncio.sleep(0.01)


def test_a_stream_that_never_ends_is_ended() -> None:
    watch = StreamWatch()
    with serving({"a": streams(for_ever)}) as server:
        target = endpoint(f"{server.url}/a/v1", replace(FAST, total_s=0.4))
        (attempt,) = send(DirectTransport(), target, [watch])
    assert attempt.fault is Fault.SUPPLIER_TIMEOUT
    assert watch.first_token_ms is not None and watch.text is not None


def test_odd_answers_are_read_the_same_and_timed_in_order() -> None:
    """Whatever stands in a stream, watching it changes nothing of what is read."""

    async def main() -> list[tuple[Attempt, Attempt, StreamWatch]]:
        transport, found = DirectTransport(), []
        with odd.serving() as url:
            for row in odd.rows():
                if not row.name.startswith("stream"):
                    continue
                target, watch = endpoint(f"{url}/{row.name}/v1"), StreamWatch()
                plain = await transport.send(target, relay())
                found.append((plain, await transport.send(target, replace(relay(), watch=watch)), watch))
        await transport.close()
        return found

    found = asyncio.run(main())
    assert len(found) > 20
    for plain, watched, watch in found:
        assert (watched.fault, watched.text, watched.error) == (plain.fault, plain.text, plain.error)
        if watched.fault.answered and watched.text:
            assert watch.first_answer_ms is not None and watch.events
        if watch.first_token_ms is not None:
            assert watch.first_event_ms is not None and watch.last_token_ms is not None
            assert watch.first_event_ms <= watch.first_token_ms <= watch.last_token_ms <= watched.latency_ms
