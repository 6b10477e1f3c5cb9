"""Suppliers that answer tasks of every framework over HTTP, by script, and note what they were asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.tasks.starter import loader
from testbench_dagster.tasks.tools import TASKS, read_docs
from testbench_dagster_tests.tasks.tools.scripted import right, stored

Body = Mapping[str, Any]
PAGE = "/pokt/config"
_SUM = re.compile(r"How much is (\d+) plus (\d+)\?")


def digest(body: Body) -> str:
    """What a request asks: its messages and the tools or form beside them."""
    asked = {name: body.get(name) for name in ("messages", "tools", "response_format")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    """A request as it was received; ``key`` is its :func:`digest` or the path of a page."""

    supplier: str
    key: str
    ended: float  # seconds since 1970


class Scripted:
    """``good`` is always right, ``half`` in what :meth:`knows` says."""

    SUPPLIERS = ("good", "half")

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.received: list[Request] = []
        self._lock = threading.Lock()
        self._tools = {row["messages"][-1]["content"]: row for task in TASKS for row in read_docs(task)}
        self._sums = {row["question"]: str(row["answer"]) for row in loader.read_docs("starter_arithmetic")}

    @staticmethod
    def knows(supplier: str, key: str) -> bool:
        """Whether a supplier answers rightly."""
        return supplier == "good" or int(key[:8], 16) % 2 == 0

    def answer(self, supplier: str, body: Body) -> ChatMessage:
        """What a supplier says to a request."""
        asked: str = body["messages"][-1]["content"]
        knows = self.knows(supplier, digest(body))
        if row := self._tools.get(asked):
            return ChatMessage.read(right(row) if knows else stored("I do not know."))
        if numbers := _SUM.search(asked):
            total = int(numbers[1]) + int(numbers[2])
            lines = re.findall(r"^([A-Z])\) (\d+)$", asked, re.M)
            letter = next(letter for letter, number in lines if (int(number) == total) is knows)
            return ChatMessage(f"ANSWER: {letter}", (), "stop")
        for question, number in self._sums.items():
            if asked.endswith(f"{question}\nAnswer:"):
                return ChatMessage(number if knows else "none", (), "stop")
        # a probe of who answers: everybody in words of their own
        return ChatMessage(f"{supplier} says {digest(body)}", (), "stop")

    def record(self, supplier: str, key: str) -> None:
        """Write down a request that was answered."""
        with self._lock:
            self.received.append(Request(supplier, key, time.time()))


@contextlib.contextmanager
def serving(suppliers: Scripted) -> Iterator[str]:
    """Serve the suppliers at ``<address>/<name>/v1``, and a page of each beside that."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.split("/")[1]
            if not self.path.endswith(PAGE):
                self._send(404, {"error": {"message": "no such page"}})
                return
            suppliers.record(name, PAGE)
            self._send(200, {"architectures": [name], "hidden_size": 64})

        def do_POST(self) -> None:
            name, body = self.path.split("/")[1], self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body)
            time.sleep(suppliers.delay_s)
            message = suppliers.answer(name, request)
            calls = [
                {"id": str(n), "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for n, c in enumerate(message.tool_calls)
            ]
            said = {"role": "assistant", "content": message.content, "tool_calls": calls or None}
            choice = {"index": 0, "finish_reason": message.finish_reason, "message": said}
            suppliers.record(name, digest(request))
            with contextlib.suppress(OSError):  # whoever asked may be dead
                self._send(200, {"choices": [choice], "usage": {"completion_tokens": 5}})

        def _send(self, status: int, content: object) -> None:
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """Nothing: who is killed leaves its connections open."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
