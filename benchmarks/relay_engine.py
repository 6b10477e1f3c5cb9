"""Relay engine against lm-eval's own client on the same loopback server, and with evidence stored.

    python benchmarks/relay_engine.py [--requests N]

Every part runs in a fresh process, so CPU and memory are its own; the server is one more process whose
answers are prepared bytes. lm-eval's client needs ``pip install "lm-eval[api]"`` (tenacity); without it that
row is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

PROMPT_BYTES = 3_000
ANSWER_TEXT = "Step by step: 17 plus 25 is 42, and half of that is 21.\n" * 6 + "#### 21"
QUEUES = (1_000, 100_000)


class AnswerAll(asyncio.Protocol):
    """Reads requests by their Content-Length and answers each with the same prepared bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (head := buffer.find(b"\r\n\r\n")) >= 0:
            at = buffer[:head].lower().find(b"content-length:")
            length = int(buffer[at + 15 : head].split(b"\r\n", 1)[0])
            if len(buffer) < head + 4 + length:
                break
            buffer = buffer[head + 4 + length :]
            self._transport.write(self._answer)  # type: ignore[attr-defined]
        self._buffer = buffer


def serve(ready: Connection) -> None:
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "bench",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ANSWER_TEXT},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 750, "completion_tokens": 120, "total_tokens": 870},
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: AnswerAll(answer), "127.0.0.1", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())


def messages(number: int) -> list[dict[str, str]]:
    text = f"Question {number}: " + "A farmer has 17 apples and buys 25 more at the market. " * 60
    return [{"role": "user", "content": text[:PROMPT_BYTES]}]


def relays(supplier: str, count: int) -> Iterator[Any]:
    from testbench_dagster.core.relay import Relay

    generation = {"until": ["Question:", "</s>"], "do_sample": False, "temperature": 0.0}
    for n in range(count):
        request = {"type": "generate_until", "idx": 0, "messages": messages(n), "generation": generation}
        yield Relay(supplier, "bench", "gsm8k", "hash", 1, 0, f"{supplier}-{n}", n, n, 0, 0, request)


def endpoint(supplier: str, port: int, in_flight: int) -> Any:
    from testbench_dagster.core.relay import Endpoint, Limits

    # the adaptive limit starts at its ceiling: the number in flight is what is measured, not its growth
    limits = Limits(max_in_flight=in_flight, start_in_flight=in_flight)
    headers = {"Authorization": "Bearer benchmark-key"}
    return Endpoint(supplier, "bench", f"http://127.0.0.1:{port}/v1", "chat", "bench", limits, headers)


def ours(port: int, requests: int, in_flight: int = 256) -> dict[str, Any]:
    from testbench_dagster.relays.engine import run_relays
    from testbench_dagster.transports.direct.transport import DirectTransport

    ends = endpoint("a@bench", port, in_flight)
    run_relays(
        [(ends, relays("a@bench", 500))],
        lambda *_: None,
        max_in_flight=in_flight,
        open_transport=DirectTransport,
    )
    return measured(
        requests,
        lambda: (
            run_relays(
                [(ends, relays("a@bench", requests))],
                lambda *_: None,
                max_in_flight=in_flight,
                open_transport=DirectTransport,
            ).total.final
        ),
    )


def stored(port: int, requests: int, in_flight: int = 2_000) -> dict[str, Any]:
    from testbench_dagster.relays.engine import run_relays
    from testbench_dagster.stages.relay.writer import AttemptWriter
    from testbench_dagster.stores.documents.collections import ATTEMPTS
    from testbench_dagster.stores.documents.sqlite import SqliteDocuments
    from testbench_dagster.transports.direct.transport import DirectTransport

    with tempfile.TemporaryDirectory() as folder:
        store = SqliteDocuments(Path(folder) / "documents.sqlite")
        ends = endpoint("a@bench", port, in_flight)

        def run() -> int:
            with AttemptWriter(store) as writer:
                run_relays(
                    [(ends, relays("a@bench", requests))],
                    writer.add,
                    max_in_flight=in_flight,
                    open_transport=DirectTransport,
                )
            return store.count(ATTEMPTS)

        row = measured(requests, run)
        store.close()
    return row


def lm_eval_client(port: int, requests: int, in_flight: int = 256) -> dict[str, Any]:
    import logging

    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalChatCompletion

    logging.disable(logging.CRITICAL)
    client = LocalChatCompletion(
        base_url=f"http://127.0.0.1:{port}/v1/chat/completions",
        model="bench",
        num_concurrent=in_flight,
        max_retries=1,
    )
    generation = {"until": ["Question:", "</s>"], "do_sample": False, "temperature": 0.0}

    def run(count: int) -> int:
        instances = [
            Instance(
                request_type="generate_until",
                doc={},
                arguments=(client.apply_chat_template(messages(n)), generation),
                idx=0,
            )
            for n in range(count)
        ]
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            return sum(answer == ANSWER_TEXT for answer in client.generate_until(instances))

    run(500)
    return measured(requests, lambda: run(requests))


def queued(port: int, requests: int) -> dict[str, Any]:
    return ours(port, requests)


def measured(requests: int, run: Callable[[], int]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    done = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if done < requests:
        raise SystemExit(f"only {done} of {requests} requests were answered")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": requests / wall, "cpu_ms": cpu / requests * 1000, "rss_mb": rss}


def part(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Run one part in a fresh process and return its row."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_part, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed") from None
    finally:
        process.join()


def _part(sender: Connection, function: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    sender.send(function(*args))


CONTEXT = multiprocessing.get_context("spawn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, help="requests per part (default 10000)")
    requests = parser.parse_args().requests

    receiver, sender = CONTEXT.Pipe(duplex=False)
    server = CONTEXT.Process(target=serve, args=(sender,), daemon=True)
    server.start()
    port = receiver.recv()
    try:
        engine = part(ours, port, requests)
        rows = [("engine, 256 in flight, nothing stored", engine)]
        ratio = None
        if importlib.util.find_spec("tenacity") is None:
            print("lm-eval's client left out: pip install 'lm-eval[api]'", file=sys.stderr)
        else:
            peer = part(lm_eval_client, port, requests)
            rows.append(("lm-eval local-chat-completions, 256", peer))
            ratio = engine["rate"] / peer["rate"]
        kept = part(stored, port, requests)
        rows.append(("engine, 2,000 in flight, evidence in SQLite", kept))
        rows += [(f"engine, {count:,} queued", part(queued, port, count)) for count in QUEUES]
    finally:
        server.terminate()
        server.join()

    print(f"{'part':<46}{'requests/s':>11}{'CPU ms/req':>12}{'peak RSS MB':>13}")
    for name, row in rows:
        print(f"{name:<46}{row['rate']:>11,.0f}{row['cpu_ms']:>12.3f}{row['rss_mb']:>13.0f}")
    print()
    if ratio is not None:
        print(f"engine / lm-eval                   {ratio:.1f}x   (target 3x)")
    print(f"engine CPU per request             {engine['cpu_ms']:.3f} ms   (target 0.15 ms)")
    per_core = 1000 / kept["cpu_ms"]
    print(f"stored relays per core-second      {per_core:,.0f}   (target 1,500)")
    few, many = (row["rss_mb"] for _, row in rows[-2:])
    print(f"memory, {QUEUES[1]:,} queued over {QUEUES[0]:,}  {many / few:.2f}x   (target flat)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
