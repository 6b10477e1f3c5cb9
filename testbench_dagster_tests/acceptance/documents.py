"""Documents as tests read them: their blocks of code, their tables, their links, and how commands are run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from testbench_dagster_tests.acceptance.harness import _FOREIGN, EXAMPLES, console_script

ROOT = EXAMPLES.parent
BLOCK_S = 300.0
READY_S = 90.0
#: ``bash`` blocks are run; one marked ``background`` goes on while the following ones run.
_BLOCK = re.compile(r"^```(\w+)( background)?\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    background: bool
    text: str


class Done(NamedTuple):
    """A ``bash`` block that was run to its end, and what it said."""

    text: str
    out: str
    err: str


def document(name: str) -> str:
    """The text of a document, by its path in the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_of(text: str) -> list[Block]:
    """Its fenced blocks, in their order."""
    return [Block(m[1], bool(m[2]), m[3]) for m in _BLOCK.finditer(text)]


def yaml_of(text: str) -> list[str]:
    """Its ``yaml`` blocks."""
    return [block.text for block in blocks_of(text) if block.language == "yaml"]


def broken_links(name: str) -> list[str]:
    """Links to files and headings that are not there."""
    path, broken = ROOT / name, []
    for target_name, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", document(name)):
        if target_name.startswith("http"):
            continue
        target = (path.parent / target_name).resolve() if target_name else path
        if not target.exists():
            broken.append(target_name)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in slugs:
                broken.append(f"{target_name}#{anchor}")
    return broken


# Running ---------------------------------------------------------------------------------------------------


def shell_environment(**more: str) -> dict[str, str]:
    """The environment of somebody with the checkout installed and nothing else set."""
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    binaries = f"{console_script().parent}{os.pathsep}{Path(sys.executable).parent}"
    return {**environment, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", **more}


@contextmanager
def started(script: str, folder: Path, environment: Mapping[str, str], port: int) -> Iterator[None]:
    """Run a script in a session of its own until the end of the context, from when its port answers."""
    log = folder.parent / f"background-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-ec", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, f"{script} does not listen: {log.read_text(errors='replace')[-3000:]}"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=25)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_blocks(
    text: str,
    folder: Path,
    environment: Mapping[str, str],
    background: Mapping[str, tuple[str, int]],
    after: Callable[[Done], None] = lambda done: None,
) -> list[Done]:
    """Run all ``bash`` blocks of a document in their order; ``after`` each that ends it is called.

    ``background`` has, by how a block that goes on begins, what is run in place of that beginning and the
    port it then listens on: other ones than the documented, which may be in use on this machine.
    """
    ran = []
    with ExitStack() as stack:
        for block in blocks_of(text):
            if block.language != "bash":
                continue
            if block.background:
                command = next(c for c in background if block.text.startswith(c))
                instead, port = background[command]
                script = block.text.replace(command, f"exec {instead}", 1)
                stack.enter_context(started(script, folder, environment, port))
                continue
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", block.text],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BLOCK_S,
                check=False,
            )
            print(f"{time.monotonic() - began:6.1f} s  {block.text.splitlines()[0]}")
            said = f"{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            assert done.returncode == 0, said
            assert "Traceback" not in done.stderr, said
            ran.append(Done(block.text, done.stdout, done.stderr))
            after(ran[-1])
    return ran
