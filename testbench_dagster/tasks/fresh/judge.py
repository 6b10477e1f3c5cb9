"""Asks the generators' own checks, in a process beside this one that confines itself for each answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from testbench_dagster.sandbox import landlock
from testbench_dagster.tasks.fresh.judge_child import WALL_S

#: Seconds of the clock for the child to import the package, and beyond those of a check for its line.
_START_S, _LINE_S = 300.0, 30.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class JudgeFailed(Exception):
    """The check could not be asked; the answer has nothing to do with it."""


def why_none() -> str | None:
    """Why checks are not asked on this machine, in one sentence; None where they are."""
    return landlock.probe()


class Judge:
    """The child, started when it is first needed; it ends with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    def is_right(self, generator: str, seed: int, gold: str, found: str) -> bool:
        """Whether the check of the item's generator takes an answer for right.

        Raises:
            JudgeFailed: the child could not be started, or ended; another answer starts a new one.
        """
        said = self._ask({"generator": generator, "seed": seed, "gold": gold, "found": found})
        if "right" not in said:
            raise JudgeFailed(str(said.get("error", said))[:300])
        return said["right"] is True

    def close(self) -> None:
        """End the child."""
        process, self._process, self._heard = self._process, None, b""
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            process = self._started()
            if process.stdin is None:
                raise JudgeFailed("the child has no pipe")
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            return self._line(process, WALL_S + _LINE_S)
        except (OSError, ValueError) as error:
            self.close()
            raise JudgeFailed(f"the process that runs checks: {type(error).__name__}: {error}") from error
        except JudgeFailed:
            self.close()
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._process = subprocess.Popen(  # this Python with our own module
            [sys.executable, "-m", "testbench_dagster.tasks.fresh.judge_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
        )
        self._line(self._process, _START_S)
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """The next line of the child, which is ours: bounded by what it writes."""
        if process.stdout is None:
            raise JudgeFailed("the child has no pipe")
        while b"\n" not in self._heard:
            if not select.select([process.stdout], [], [], seconds)[0]:
                raise JudgeFailed(f"the process that runs checks said nothing for {seconds:g} s")
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                raise JudgeFailed(f"the process that runs checks ended (exit code {process.wait()})")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        said = json.loads(line)
        if not isinstance(said, dict):
            raise JudgeFailed(f"the process that runs checks said {said!r}")
        return said
