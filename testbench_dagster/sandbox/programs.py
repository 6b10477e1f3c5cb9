"""What a program that nobody trusts may use, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

_MIB = 1 << 20

#: How a program ended: by itself; by a check that failed or something else that it raised; before its checks
#: were through; by a limit; by a signal; by what no program may do.
Reason = Literal[
    "done", "raised", "left early", "time", "memory", "output", "too large", "crashed", "forbidden"
]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use.

    ``cpu_s`` are seconds of CPU time, ``wall_s`` of the clock; what it waited for a processor does not count,
    up to ten times as long. lm-eval's own limit is 3 seconds of the clock. No process may be started;
    ``threads`` counts those of the one that there is. ``program_bytes`` is the largest program that is begun.
    """

    cpu_s: int = 3
    wall_s: float = 5.0
    memory_bytes: int = 1024 * _MIB
    file_bytes: int = 8 * _MIB
    folder_bytes: int = 16 * _MIB
    open_files: int = 64
    threads: int = 16
    output_bytes: int = 64 << 10
    program_bytes: int = _MIB

    def settings(self) -> dict[str, Any]:
        """The limits by name, as they stand in the hash of a configuration."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What came of a program.

    ``exit`` is its exit code, None where it was ended from outside. ``output`` is the head of what it
    printed, ``note`` says what it raised; both are the program's own words, and may say anything. ``passed``:
    its checks ran to their end and held. ``seconds`` are of the clock.
    """

    exit: int | None
    reason: Reason
    output: str = ""
    note: str = ""
    passed: bool = False
    seconds: float = 0.0


#: What one may use where nothing else is said.
USUAL = Limits()


class Sandbox(Protocol):
    """One way to run a program that nobody trusts."""

    name: str

    def run(self, program: str, limits: Limits = ...) -> Ran:
        """Run a Python program by itself, as ``python program.py`` does, and return what it printed.

        Raises:
            SandboxError: it could not be started here: that is not the program's doing.
        """
        ...

    def judge(self, answer: str, checks: str, limits: Limits = ...) -> Ran:
        """Run an answer and then its checks, in one namespace, as ``exec`` of both together does.

        Raises:
            SandboxError: as for :meth:`run`.
        """
        ...

    def probe(self) -> str | None:
        """Why it does not hold on this machine, in one sentence; None where it does. It is tried out."""
        ...
