"""Children of frameworks that tests hand on to each other: starting lm-eval takes more than a CPU second."""

from __future__ import annotations

import os
from collections.abc import Set
from typing import ClassVar

from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.tasks.index import CACHE_ENV
from testbench_dagster.tasks.worker import FrameworkWorker, WorkerProcess

#: Begins of variables that tests set all the time, and children do not read but for where indexes are kept.
NOT_THE_CHILDS = ("PYTEST_", "TESTBENCH_", "DAGSTER_")
#: Where stores are is a secret that all children that are kept are started without.
WITHHELD = frozenset({"TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_POSTGRES_URL"})


class Lent(FrameworkWorker):
    """Uses the children of the one before it, where they would be started in the same way; does not end them.

    In the same way: same folder, same environment but for what children do not read, nothing withheld.
    ``everywhere``: where they would not, too. Who wants children of its own makes a ``FrameworkWorker``.
    """

    #: Of the environment and the folder in which a test first asked for one, by the processes' names.
    _kept: ClassVar[dict[str, WorkerProcess]] = {}
    _started_in: ClassVar[object] = None
    #: Where one was started last that was not kept.
    _elsewhere: ClassVar[object] = None

    def __init__(
        self, secrets: Set[str] = frozenset(), *, hash_seed: int = 0, everywhere: bool = False
    ) -> None:
        super().__init__(secrets, hash_seed=hash_seed)
        self._plain = not hash_seed and not os.environ.keys() & secrets - WITHHELD
        self._everywhere = everywhere
        here = _circumstances()
        if everywhere or not self._plain or here == Lent._started_in:
            return
        if here == Lent._elsewhere:  # for a second time: not one test alone has changed it
            begin()
        else:
            Lent._elsewhere = here

    def process(self, framework: str) -> WorkerProcess:
        """The kept child process of a framework, or one of its own."""
        if not self._everywhere and not (self._plain and _circumstances() == Lent._started_in):
            return super().process(framework)
        name = framework_plug(framework).process or framework
        return Lent._kept.setdefault(name, WorkerProcess(name, WITHHELD))


def begin() -> None:
    """Lend the children that start in these circumstances from now on, and no others."""
    end()
    Lent._started_in = _circumstances()


def end() -> None:
    """End the children that were kept."""
    Lent._started_in = Lent._elsewhere = None
    while Lent._kept:
        Lent._kept.popitem()[1].close()


def _circumstances() -> object:
    theirs = {n: v for n, v in os.environ.items() if n == CACHE_ENV or not n.startswith(NOT_THE_CHILDS)}
    return os.getcwd(), theirs
