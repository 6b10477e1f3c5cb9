"""A judge behind HTTP on loopback, as metrics ask one: it can be gone, busy, or never answer."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Judge:
    """Gives 1.0 to answers that hold the reference; a context manager, there until it ends.

    ``mode``: ``well``, ``busy`` (503), ``full`` (200 that says it is busy), ``silent`` (never answers).
    ``asked`` counts the requests.
    """

    def __init__(self, port: int = 0) -> None:
        self.mode = "well"
        self.asked = 0
        self._over = threading.Event()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                judge.asked += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if judge.mode == "silent":
                    judge._over.wait(60)
                    return
                status, answer = judge.answer(body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/judge"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.mode == "busy":
            return 503, {"error": "no free place"}
        if self.mode == "full":
            return 200, {"busy": True}
        return 200, {"score": float(str(asked["reference"]) in str(asked["answer"]))}

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
