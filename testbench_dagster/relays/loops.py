"""Runs a coroutine from synchronous code, wherever that code runs: an event loop of its own per call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CANCEL_POLL_S = 0.1


def run_to_end(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine function in an event loop of its own; return what it returns, raise what it raises.

    Works in any thread. In the main thread, and where a loop is already running, it gets a fresh thread and
    this one waits: what a signal handler raises, such as Dagster's interrupt, would be swallowed inside an
    event loop's callbacks. An exception raised here while waiting cancels it first.
    """
    if threading.current_thread() is threading.main_thread() or _loop_is_running():
        return _in_thread(main)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main())


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _in_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in a thread with its own loop; an interrupt here cancels it there."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    # waited for instead of the thread: an interrupted Thread.join() takes the thread for dead (Python 3.11)
    finished = threading.Event()

    async def tracked() -> T:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a coroutine runs outside of any task")
        started.append((asyncio.get_running_loop(), task))
        return await main()

    def body() -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                outcome.append(runner.run(tracked()))
        except BaseException as exc:  # carried over to the calling thread
            failure.append(exc)
        finally:
            finished.set()

    thread = threading.Thread(target=body, name="testbench-loop", daemon=True)
    outer = asyncio.current_task() if _loop_is_running() else None  # of the loop that this call blocks
    cancelled_before = outer.cancelling() if outer is not None else 0

    def cancel() -> None:
        for loop, task in started:
            with contextlib.suppress(RuntimeError):  # that loop has just closed: nothing left to cancel
                loop.call_soon_threadsafe(task.cancel)

    thread.start()
    try:
        while not finished.wait(_CANCEL_POLL_S):
            # asyncio turns a first Ctrl-C into a cancellation, which a blocked loop would never deliver
            if outer is not None and outer.cancelling() > cancelled_before:
                cancel()
    except BaseException:
        while not started and not finished.wait(0.01):
            pass  # interrupted before there was a task to cancel
        cancel()
        finished.wait()
        raise
    if failure:
        raise failure.pop()
    return outcome.pop()
