"""Garbage that refers to itself is looked for again when a block, or a decorated function, ends."""

from __future__ import annotations

import gc
import threading

import pytest

from testbench_dagster.core.memory import keeping_all


def test_nothing_is_looked_for_until_the_end() -> None:
    assert gc.isenabled()
    with keeping_all():
        assert not gc.isenabled()
        with keeping_all():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the inner one changed nothing"
    assert gc.isenabled()
    with pytest.raises(ValueError, match="midst"), keeping_all():
        raise ValueError("in the midst")
    assert gc.isenabled()


def test_as_a_decorator_and_in_threads() -> None:
    both = threading.Barrier(2)
    seen: list[bool] = []

    @keeping_all()
    def work(last: bool) -> None:
        both.wait(10)
        seen.append(gc.isenabled())
        both.wait(10)
        if last:
            both.wait(10)

    threads = [threading.Thread(target=work, args=(last,)) for last in (False, True)]
    for thread in threads:
        thread.start()
    threads[0].join(10)
    both.wait(10)
    threads[1].join(10)
    assert seen == [False, False]
    assert gc.isenabled(), "whoever ends last"
