"""``testbench`` in the process of the tests: a process of its own spends seconds on imports alone.

Exit codes, messages and what is written are the same. What only a process shows (signals, pipes that break,
what is imported when, that nothing else was imported before) is tested with processes.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from testbench_dagster.cli import main


class Said(NamedTuple):
    """What a command did, as a finished process tells it."""

    returncode: int
    stdout: str
    stderr: str


def say(folder: Path, *arguments: str, environment: Mapping[str, str] = os.environ) -> Said:
    """Run ``testbench`` in a folder, with this environment and no other."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name in set(os.environ) - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr("sys.argv", ["testbench", *arguments])
        patch.setattr("sys.stdin", stack.enter_context(open(os.devnull)))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        ended = stack.enter_context(pytest.raises(SystemExit))
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return Said(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]
