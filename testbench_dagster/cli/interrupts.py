"""Ctrl-C at a command that can stop in order: the first one asks it to, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from testbench_dagster.coordination.processes import ignoring_alone

T = TypeVar("T")

#: What a shell expects of a command that an interrupt ended.
INTERRUPTED = 130
_LOOK_S = 0.2


def stoppable(work: Callable[[threading.Event], T], on_stop: Callable[[], None]) -> T:
    """Do work in a thread, from the main one; return what it returns, raise what it raises.

    The first interrupt (or SIGTERM) sets the event that ``work`` is given and calls ``on_stop``; the second
    ends the process at once, with exit code 130. Signals that the process was started to ignore stay ignored.
    """
    stop = threading.Event()
    outcome: list[T] = []
    failure: list[BaseException] = []
    finished = threading.Event()

    def body() -> None:
        # Ctrl-C reaches every process of the terminal: whom this thread starts (Dagster's copiers of output,
        # for one) inherits that it is blocked, or would die of it with a traceback before the work is done
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            outcome.append(work(stop))
        except BaseException as error:  # carried over to the main thread
            failure.append(error)
        finally:
            finished.set()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    caught = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, interrupt) for one in caught}
    thread = threading.Thread(target=body, name="testbench-run", daemon=True)
    try:
        with ignoring_alone():
            thread.start()
            told = False
            while not finished.wait(_LOOK_S) or (stop.is_set() and not told):
                if stop.is_set() and not told:
                    told = True
                    on_stop()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if failure:
        raise failure[0]
    return outcome[0]
