"""Runs the localnet as a subprocess: what the demo, the CLI and end-to-end tests use."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

from testbench_dagster.core.errors import TestbenchError

_READY = "listening on "

# a proxy configured for the outside world must not see requests to loopback
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LocalnetError(TestbenchError):
    """The simulated network did not start or does not answer."""


def control(url: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Change the simulated network at ``url``; actions and fields are those of :mod:`.control`.

    Raises LocalnetError when it does not answer, or refuses, with what it says.
    """
    return post(f"{url}/control/{action}", fields)


def post(url: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Post a JSON object and return the one that is answered. Raises LocalnetError as :func:`control`."""
    answer: dict[str, Any] = call(url, json.dumps(fields).encode())
    return answer


def call(url: str, body: bytes | None = None) -> Any:
    """Get a page, or post a body, and return the JSON that is answered.

    Raises LocalnetError when nothing answers, or it is refused, with what is said.
    """
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        # of the localnet's own control pages: an opener without a proxy, and for http alone
        with _OPENER.open(urllib.request.Request(url, body, headers), timeout=10) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(2000).decode(errors="replace")
        with contextlib.suppress(ValueError, LookupError, TypeError):
            said = json.loads(said)["error"]["message"]
        raise LocalnetError(f"{url}: HTTP {error.code}: {said}") from None
    except (OSError, ValueError) as error:
        raise LocalnetError(f"the localnet does not answer at {url}: {error}") from error


class LocalnetProcess:
    """``python -m testbench_dagster.localnet`` as a context manager.

    The child holds the read end of a pipe and stops when it closes, so it never outlives this process,
    however this process ends. ``latency_ms``, ``fail_mode`` and ``fail_rate`` override the personas';
    ``answers`` is a file of recorded answers, ``questions`` one of public questions with their right answers;
    with ``block_seconds`` the roster tells a growing block height.
    """

    def __init__(
        self,
        suppliers: int = 6,
        seed: int = 0,
        port: int = 0,
        *,
        fail_mode: str = "500",
        fail_rate: float | None = None,
        latency_ms: float | None = None,
        answers: Path | None = None,
        questions: Path | None = None,
        block_seconds: float | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        """Keeps the options; nothing runs before :meth:`start`."""
        self._command = [
            sys.executable, "-m", "testbench_dagster.localnet", "--exit-with-stdin",
            "--suppliers", str(suppliers), "--seed", str(seed), "--port", str(port), "--fail-mode", fail_mode,
        ]  # fmt: skip
        for option, value in (
            ("--fail-rate", fail_rate),
            ("--latency-ms", latency_ms),
            ("--answers", answers),
            ("--questions", questions),
            ("--block-seconds", block_seconds),
        ):
            if value is not None:
                self._command += [option, str(value)]
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``; raises LocalnetError before the start and after the stop."""
        if not self._url:
            raise LocalnetError("the localnet is not running; call start() or use it as a context manager")
        return self._url

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Starts the server and waits until it accepts requests.

        Raises LocalnetError, with what the server said, when it ends early or is not ready in time.
        """
        if self._process is not None:
            raise LocalnetError("the localnet is running already")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        # the command is this Python and options that were checked
        self._process = subprocess.Popen(  # noqa: S603
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # a Ctrl-C at the terminal is meant for its starter, who still needs it
        )
        try:
            line = self._first_line(self._process)
        except BaseException:
            self.stop()
            raise
        if not line.startswith(_READY):
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()[-2000:]
            code = self._process.poll()
            self.stop()
            state = "is not ready in time" if code is None else f"ended with code {code}"
            raise LocalnetError(f"the localnet {state}; it said: {said or line or 'nothing'}")
        self._url = line.removeprefix(_READY)
        return self

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        """First line of the server's output, "" when it ended or time is up."""
        if process.stdout is None:
            raise RuntimeError("the localnet was started without a pipe for its output")
        descriptor, deadline, received = (
            process.stdout.fileno(),
            time.monotonic() + self._start_timeout_s,
            b"",
        )
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in received:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    return ""
                chunk = os.read(descriptor, 4096)
                if not chunk:
                    process.wait(timeout=5)
                    return ""
                received += chunk
        return received.split(b"\n", 1)[0].decode(errors="replace").strip()

    def roster(self) -> list[dict[str, Any]]:
        """The suppliers: ``address``, ``service``, ``api``, ``base_url``, ``model``, ``simulation``."""
        suppliers: list[dict[str, Any]] = self._get("roster")["suppliers"]
        return suppliers

    def stats(self) -> dict[str, dict[str, Any]]:
        """Counts per supplier address since the start, those that left included."""
        counts: dict[str, dict[str, Any]] = self._get("stats")["suppliers"]
        return counts

    def requests(self, address: str) -> list[dict[str, Any]]:
        """What a supplier was asked, in order: ``at``, ``digest``, ``outcome``, ``backend``."""
        asked: list[dict[str, Any]] = self._get(f"requests?address={quote(address)}")["requests"]
        return asked

    def join(
        self,
        address: str | None = None,
        *,
        backend: str | None = None,
        api: str | None = None,
        accuracy: float | None = None,
        latency_ms: float | None = None,
        manners: str | None = None,
        tools: str | None = None,
        quantised: bool | None = None,
    ) -> dict[str, Any]:
        """Add a supplier and return its line of the roster; a known ``backend`` makes it a twin."""
        fields = {"backend": backend, "api": api, "accuracy": accuracy, "latency_ms": latency_ms}
        fields |= {"tools": tools, "quantised": quantised}
        return self._control("join", address=address, manners=manners, **fields)

    def manners(self, address: str, kind: str) -> dict[str, Any]:
        """Let a supplier's server be of another kind: see :mod:`.manners`."""
        return self._control("manners", address=address, kind=kind)

    def tools(self, address: str, kind: str) -> dict[str, Any]:
        """Let another thing become of a supplier's tool calls: see :data:`~.personas.TOOL_USES`."""
        return self._control("tools", address=address, kind=kind)

    def speed(
        self, address: str, first_token_ms: float | None = None, tokens_per_s: float | None = None
    ) -> dict[str, Any]:
        """Let a supplier's first token take so long, and others come so fast; by default as before."""
        return self._control(
            "speed", address=address, first_token_ms=first_token_ms, tokens_per_s=tokens_per_s
        )

    def learn(self, questions: Iterable[Mapping[str, Any]]) -> None:
        """Let all models know further questions: see :meth:`.control.Control.learn`."""
        given = list(questions)
        for start in range(0, len(given), 500):
            self._control("learn", questions=given[start : start + 500])

    def leave(self, address: str) -> None:
        """Take a supplier off the roster; it answers HTTP 503 from now on."""
        self._control("leave", address=address)

    def return_(self, address: str) -> None:
        """Bring a supplier back that left."""
        self._control("return", address=address)

    def swap(
        self,
        address: str,
        *,
        backend: str | None = None,
        accuracy: float | None = None,
        announce: bool = False,
    ) -> dict[str, Any]:
        """Let another model answer for a supplier, under its old name unless announced."""
        return self._control("swap", address=address, backend=backend, accuracy=accuracy, announce=announce)

    def fail(self, address: str, mode: str = "500", rate: float = 1.0) -> None:
        """Let a share of a supplier's requests fail in this way, and in no other; rate 0 ends it."""
        self._control("fail", address=address, mode=mode, rate=rate)

    def withhold(self, address: str, *how: str, **rule: Any) -> None:
        """Let a supplier keep answers back by one rule; without any ``how`` it answers again.

        ``rule`` are the fields of :class:`~testbench_dagster.localnet.withholding.Withholding`.
        """
        self._control("withhold", address=address, how=list(how) or None, **rule)

    def deceive(
        self,
        address: str,
        *,
        memorises: float | None = None,
        public_accuracy: float | None = None,
        public_backend: str | None = None,
        routed: float | None = None,
        routed_accuracy: float | None = None,
        routed_backend: str | None = None,
        routed_by: str | None = None,
        caches: bool | None = None,
        copies: str | None = None,
    ) -> None:
        """Let a supplier deceive in these ways, and in no other; without any it is honest again."""
        fields: dict[str, Any] = {"memorises": memorises, "caches": caches, "copies": copies}
        fields |= {"public_accuracy": public_accuracy, "public_backend": public_backend}
        fields |= {"routed": routed, "routed_accuracy": routed_accuracy, "routed_backend": routed_backend}
        self._control("deceive", address=address, routed_by=routed_by, **fields)

    def set_height(self, height: int) -> None:
        """Set the block height that the roster tells."""
        self._control("height", height=height)

    def _control(self, action: str, **fields: Any) -> dict[str, Any]:
        return control(self.url, action, {n: value for n, value in fields.items() if value is not None})

    def _get(self, page: str) -> Any:
        return call(f"{self.url}/{page}")

    def stop(self) -> None:
        """Ends the server; harmless when it is not running."""
        process, self._process, self._url = self._process, None, ""
        if process is not None:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the localnet was started without pipes")
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def __enter__(self) -> Self:
        """Starts it."""
        return self.start()

    def __exit__(self, *exc: object) -> None:
        """Stops it."""
        self.stop()
