"""The real command in a working folder of its own, and recorded models as live suppliers beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.stores.datasets import DatasetStore, open_datasets
from testbench_dagster.stores.documents import Document, DocumentStore, open_documents
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster_tests.commands import say
from testbench_dagster_tests.servers import free_port, stop
from testbench_dagster_tests.tasks.layouts import REPOSITORY, SHARED

TOOLS = SHARED / "tools"
EXAMPLES = REPOSITORY / "examples"
START_SECONDS = 30.0
#: Variables that would point a command to something else than its own folder.
_FOREIGN = (
    "TESTBENCH_CONFIG",
    "TESTBENCH_HOME",
    "TESTBENCH_MONGO_URI",
    "TESTBENCH_POSTGRES_URI",
    "TESTBENCH_SUPPLIERS_PER_RUN",
    "DAGSTER_HOME",
    "DAGSTER_POSTGRES_URL",
)


# The command ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """What a command did: exit code, output, and how long it took in seconds."""

    code: int
    out: str
    err: str
    seconds: float

    def __str__(self) -> str:
        return f"exit code {self.code} after {self.seconds:.1f} s\n{self.out[-3000:]}\n{self.err[-3000:]}"


@dataclass
class Installation:
    """A working folder with its configuration; ``environment`` is added to every command's."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def configure(self, **settings: Any) -> Path:
        """Write ``testbench.yaml`` into the folder."""
        path = self.folder / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        return path

    def configure_example(self, name: str, **variables: str) -> None:
        """Use a configuration of ``examples/`` where it lies, its data kept in the folder."""
        self.environment |= {
            "TESTBENCH_CONFIG": str(EXAMPLES / name),
            "TESTBENCH_HOME": str(self.home),
            "TESTBENCH_SHARED": str(SHARED),
            **variables,
        }

    @property
    def home(self) -> Path:
        """Where the installation keeps its data."""
        return self.folder / ".testbench"

    @property
    def all_environment(self) -> dict[str, str]:
        """What a command finds in its environment."""
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        return {**inherited, **self.environment}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``testbench`` in a process group of its own."""
        return subprocess.Popen(
            [str(console_script()), *arguments],
            cwd=self.folder,
            env=self.all_environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str, timeout_s: float = 300) -> Finished:
        """Run ``testbench`` to its end; a command that takes too long is killed and fails the test."""
        began = time.monotonic()
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            kill_group(process)
            out, err = process.communicate()
            raise AssertionError(
                f"testbench {' '.join(arguments)} took longer than {timeout_s:.0f} s: {err[-2000:]}"
            ) from None
        except BaseException:
            kill_group(process)
            raise
        return Finished(process.returncode, out, err, time.monotonic() - began)

    def command_here(self, *arguments: str) -> Finished:
        """Run ``testbench`` in this process, which has imported most of it."""
        began = time.monotonic()
        said = say(self.folder, *arguments, environment=self.all_environment)
        return Finished(*said, time.monotonic() - began)

    def run(self, *arguments: str, timeout_s: float = 300) -> Finished:
        """``testbench run`` that has to succeed."""
        done = self.command("run", *arguments, timeout_s=timeout_s)
        assert done.code == 0, done
        return done

    def scores(self, *arguments: str) -> list[dict[str, Any]]:
        """``testbench scores --format json``; stdout holds nothing but the JSON."""
        done = self.command("scores", "--format", "json", *arguments)
        assert done.code == 0, done
        rows: list[dict[str, Any]] = json.loads(done.out)
        return rows

    @contextlib.contextmanager
    def documents(self) -> Iterator[DocumentStore]:
        """The document store of the installation, opened in this process."""
        store = open_documents(self.home, self.environment.get("TESTBENCH_MONGO_URI"))
        try:
            yield store
        finally:
            store.close()

    @contextlib.contextmanager
    def datasets(self) -> Iterator[DatasetStore]:
        """The dataset store of the installation, opened in this process."""
        store = open_datasets(self.home, self.environment.get("TESTBENCH_POSTGRES_URI"))
        try:
            yield store
        finally:
            store.close()


def console_script() -> Path:
    """The installed ``testbench`` of this interpreter."""
    beside = Path(sys.executable).parent / "testbench"
    found = beside if beside.exists() else Path(shutil.which("testbench") or "")
    assert found.is_file(), "the console script testbench is not installed; run pip install -e '.[test]'"
    return found


def kill_group(process: subprocess.Popen[Any]) -> None:
    """SIGKILL the process and everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# Recorded suppliers ---------------------------------------------------------------------------------------


class Replay:
    """One running ``replay_server.py``; use as a context manager."""

    def __init__(self, answers: Path, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log = folder / f"requests-{self.port}-{time.monotonic_ns()}.jsonl"
        self._command = [sys.executable, str(TOOLS / "replay_server.py"), "--port", str(self.port)]
        self._command += ["--answers", str(answers), "--log", str(self.log), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base URL of the supplier."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Replay:
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._process = process
        assert process.stdout is not None
        # reading the first line waits for the server, however long it takes to read its answers
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline().decode()
        timer.cancel()
        if not line.startswith("listening"):
            stop(process)
            raise RuntimeError(f"the replay server did not start: {line}{process.stdout.read().decode()}")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            stop(self._process)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def stats(self) -> dict[str, Any]:
        """The server's counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as answer:
            stats: dict[str, Any] = json.load(answer)
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """What the server logged, one row per finished request, by time of its arrival."""
        if not self.log.exists():
            return []
        rows = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return sorted(rows, key=lambda row: row["n"])


@contextlib.contextmanager
def replays(
    answers: Sequence[Path], folder: Path, *options: str, ports: Sequence[int | None] = ()
) -> Iterator[list[Replay]]:
    """Several servers, one per file of answers."""
    with contextlib.ExitStack() as stack:
        chosen = list(ports) or [None] * len(answers)
        yield [
            stack.enter_context(Replay(path, folder, *options, port=port))
            for path, port in zip(answers, chosen, strict=True)
        ]


class Answers:
    """Files of recorded answers, made once per test session by ``make_answers.py``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *arguments: str) -> Path:
        name = "-".join(a.lstrip("-") for a in arguments).replace("/", "_")
        path = self._folder / f"{name}.jsonl"
        if not path.exists():
            command = [sys.executable, str(TOOLS / "make_answers.py"), *arguments]
            command += ["--data", str(SHARED / "data"), "--out", str(path)]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        return path

    def gsm8k(self, system: str) -> Path:
        """The recorded solutions of one GPT-3 system."""
        return self("gsm8k", "--model", system)


# What the server saw, told in terms of the store -----------------------------------------------------------


def prompt_digest(prompt: Document) -> str:
    """How the replay server names the prompt of a stored prompt document with one request."""
    (request,) = prompt["requests"]
    if "messages" in request:
        text = "\n".join(message["content"] for message in request["messages"])
    else:
        text = request["prompt"]
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def doc_ids_by_digest(documents: DocumentStore, task: str) -> dict[str, int]:
    """Doc id by the replay server's name of its prompt."""
    found = {prompt_digest(p): p["doc_id"] for p in documents.find(PROMPTS, {"task": task})}
    assert len(set(found.values())) == len(found), "two docs of this task share one prompt text"
    return found
