"""Docs with tool calls against as many docs with texts: relayed and scored by the stages, time and CPU.

    python benchmarks/tool_calls.py [--docs 3000] [--rounds 2]

Each side is a process of its own with an embedded installation: one supplier, one task of so many docs read
from a file, relayed and then scored as a pass does it. The server is one more process. A question with tools
has one to seven of them; a text of the other side has as many bytes, answered by a worked solution of six
sentences and scored by a filter and exact match of lm-eval. Both sides begin when prompts are stored. CPU is
that of the pass and of its framework worker. The sides take turns, and the fastest round of each counts.
Every score has to be 1. Exit code 1: the time or the CPU of tool calls is more than 1.5 times that of texts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
TARGET = 1.5
STEPS = ("relay", "score")
TEXT_TASK = """
task: sums
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["</s>"], do_sample: false, temperature: 0.0, max_gen_toks: 1024}
filter_list:
  - name: last
    filter: [{function: regex, regex_pattern: "#### (-?[0-9]+)"}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
_SOLUTION = (
    "There were {n} to begin with, and none of them was given away or lost on the way. " * 6 + "\n#### {n}"
)


def tool_rows(count: int) -> Iterator[dict[str, Any]]:
    """The rows of ``tools_parallel``, over and over, each with a number of its own."""
    from testbench_dagster.tasks.tools import read_docs

    rows = read_docs("tools_parallel")
    for number in range(count):
        row = rows[number % len(rows)]
        [message] = row["messages"]
        asked = [{**message, "content": f"[{number}] {message['content']}"}]
        yield {"messages": asked, "tools": row["tools"], "gold": row["gold"]}


def text_rows(count: int) -> Iterator[dict[str, Any]]:
    """Questions whose requests are as long as those with tools."""
    for number, row in enumerate(tool_rows(count)):
        length = len(json.dumps({"tools": row["tools"], "messages": row["messages"]}))
        question = f"[{number}] How many are there? " + "A farmer had them all in one barn. " * (length // 35)
        yield {"question": question[:length], "answer": str(number)}


def answers(count: int) -> tuple[list[bytes], list[bytes]]:
    """What the server says, by the number of the question: calls, and texts."""

    def body(message: dict[str, Any], reason: str) -> bytes:
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
        usage = {"prompt_tokens": 700, "completion_tokens": 120, "total_tokens": 820}
        return json.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage}).encode()

    calls = []
    for row in tool_rows(count):
        wanted = [
            {
                "id": f"call_{n}",
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
            }
            for n, call in enumerate(row["gold"]["calls"])
        ]
        calls.append(body({"content": None, "tool_calls": wanted}, "tool_calls"))
    return calls, [body({"content": _SOLUTION.format(n=n)}, "stop") for n in range(count)]


def serve(ready: Connection, count: int) -> None:
    """Answer by the number in the last message."""
    calls, texts = answers(count)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = int(asked["messages"][-1]["content"].partition("]")[0][1:])
            answer = (calls if "tools" in asked else texts)[number]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    ready.send(server.server_port)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def cpu() -> float:
    """CPU seconds of this process and its ended children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(side: str, port: int, docs: int) -> dict[str, Any]:
    """One pass over an installation of its own."""
    import yaml

    from testbench_dagster.config import load_config
    from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
    from testbench_dagster.stages.relay.relay import relay_due
    from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
    from testbench_dagster.stages.score.score import score_new
    from testbench_dagster.stages.score.windows import windows
    from testbench_dagster.stages.workspace import Workspace

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = tool_rows(docs) if side == "calls" else text_rows(docs)
        file = folder / "test.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task: dict[str, Any] = {"data": {"test": str(file)}, "samples": "all"}
        if side == "calls":
            task |= {"name": "sums", "framework": "tools"}
        else:
            (folder / "yaml").mkdir()
            (folder / "yaml" / "sums.yaml").write_text(TEXT_TASK, encoding="utf-8")
            task |= {"name": "sums"}
        settings = {
            "suppliers": [
                {"address": "a", "service": "s", "base_url": f"http://127.0.0.1:{port}/v1", "model": "m"}
            ],
            "tasks": [task],
            "task_paths": [str(folder / "yaml")] if side == "texts" else [],
            "relays": {"max_in_flight": 32},
        }
        config = folder / "testbench.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        times: dict[str, tuple[float, float]] = {}

        @contextlib.contextmanager
        def measured(step: str) -> Iterator[None]:
            wall, used = time.perf_counter(), cpu()
            yield
            times[step] = time.perf_counter() - wall, cpu() - used

        with Workspace(load_config(config)) as workspace:
            refresh_roster(workspace)
            [spec] = workspace.specs
            refresh_dataset(workspace, spec)
            refresh_prompts(workspace, spec)
            keys = [supplier.key for supplier in active_suppliers(workspace)]
        with Workspace(load_config(config)) as workspace, measured("relay"):
            relay_due(workspace, keys)
        # the worker of a workspace ends with it, and is counted then
        with measured("score"), Workspace(load_config(config)) as workspace:
            score_new(workspace, keys)
        with Workspace(load_config(config)) as workspace:
            [row] = [row for row in windows(workspace) if row.primary]
    if (row.n, row.score) != (docs, 1):
        raise SystemExit(f"{side}: {row.n} of {docs} docs have a score of {row.score}, not all 1")
    return {step: {"wall": wall, "cpu": used} for step, (wall, used) in times.items()}


def best(port: int, docs: int, rounds: int) -> list[dict[str, Any]]:
    """The fastest of some rounds of both sides by CPU, each in a process of its own, the sides in turn."""
    found: dict[str, list[dict[str, Any]]] = {"calls": [], "texts": []}
    for _ in range(rounds):
        for side, measured in found.items():
            command = [sys.executable, __file__, "--side", side, "--port", str(port), "--docs", str(docs)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
            measured.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return [min(of, key=lambda one: sum(one[step]["cpu"] for step in STEPS)) for of in found.values()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=3_000, help="docs of each side (default 3000)")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts (default 2)")
    parser.add_argument("--side", choices=["calls", "texts"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.port, options.docs)))
        return 0
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(sender, options.docs), daemon=True)
    server.start()
    try:
        port = receiver.recv()
        calls, texts = best(port, options.docs, options.rounds)
    finally:
        server.terminate()
        server.join()
    print(f"{options.docs:,} docs {'':10}{'calls s':>10}{'texts s':>10}{'ratio':>8}")
    missed = False
    for kind in ("cpu", "wall"):
        for step in (*STEPS, "both"):
            one, other = (
                sum(side[s][kind] for s in (STEPS if step == "both" else (step,))) for side in (calls, texts)
            )
            verdict = ""
            if step == "both":
                missed |= one > TARGET * other
                verdict = f"  target {TARGET}x {'met' if one <= TARGET * other else 'MISSED'}"
            print(f"{kind:5} {step:10}{'':4}{one:>10.2f}{other:>10.2f}{one / other:>8.2f}{verdict}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
