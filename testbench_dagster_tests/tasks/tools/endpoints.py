"""Suppliers of made-up manners behind HTTP: each answers the starter tasks' requests at a path of its own."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.tasks.tools import TASKS, read_docs

Row = Mapping[str, Any]
Body = dict[str, Any]


class ToolSuppliers:
    """Serves suppliers by name, each a function from a row to a stored answer, or to None: a refusal.

    One whose name begins with ``streamed`` answers in events, a few characters at a time.
    """

    def __init__(self, manners: Mapping[str, Callable[[Row], str | None]]) -> None:
        self.manners = manners
        self.rows = {doc["messages"][-1]["content"]: doc for task in TASKS for doc in read_docs(task)}
        self.asked: list[tuple[str, Body]] = []
        self.url = ""

    def answer(self, name: str, body: Body) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to a request."""
        self.asked.append((name, body))
        row = self.rows.get(body["messages"][-1]["content"])
        # what is no doc is asked by `testbench check`
        said = ChatMessage("OK", (), "stop").text if row is None else self.manners[name](row)
        if said is None:
            refusal = {"error": {"message": "tools are not supported", "param": "tools"}}
            return 400, "application/json", json.dumps(refusal).encode()
        return 200, *self._told(name, ChatMessage.read(said))

    def _told(self, name: str, message: ChatMessage) -> tuple[str, bytes]:
        calls = [
            {"id": f"call_{n}", "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for n, c in enumerate(message.tool_calls)
        ]
        if name.startswith("streamed"):
            return "text/event-stream", b"".join(_events(message, calls))
        said: Body = {"role": "assistant", "content": message.content}
        if calls:
            said["tool_calls"] = calls
        choice = {"index": 0, "finish_reason": message.finish_reason, "message": said}
        return "application/json", json.dumps({"choices": [choice], "usage": {}}).encode()


def _events(message: ChatMessage, calls: list[Body]) -> Iterator[bytes]:
    def event(delta: Body, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()

    yield event({"role": "assistant", "content": None if calls else ""})
    text = message.content or ""
    for start in range(0, len(text), 7):
        yield event({"content": text[start : start + 7]})
    for index, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        begun = {**call, "function": {**call["function"], "arguments": ""}}
        yield event({"tool_calls": [{"index": index, **begun}]})
        for start in range(0, len(arguments), 5):
            piece = {"index": index, "function": {"arguments": arguments[start : start + 5]}}
            yield event({"tool_calls": [piece]})
    yield event({}, message.finish_reason)
    yield b"data: [DONE]\n\n"


@contextlib.contextmanager
def serving(suppliers: ToolSuppliers) -> Iterator[str]:
    """Serve the suppliers at ``<address>/<name>/v1``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, kind, answer = suppliers.answer(self.path.split("/")[1], body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
