"""What the Python API takes for an argument, and what it says of anything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbench_dagster.core import arguments
from testbench_dagster.core.errors import ConfigError


@pytest.mark.parametrize("given", [["b", "a", "b"], ("b", "a"), {"b": 1, "a": 2}, (k for k in "ba")])
def test_a_selection_may_be_anything_one_can_walk_once(given: Any) -> None:
    assert arguments.selection("suppliers", given) == ("b", "a")


def test_none_stands_for_all() -> None:
    assert arguments.selection("tasks", None) is None
    assert arguments.numbers("docs", None) is None
    assert arguments.count_or_none("budget", None) is None
    assert arguments.share("margin", None) is None
    assert arguments.text_or_none("taxonomy", None) is None


@pytest.mark.parametrize("given", [[], (), set(), iter([]), {}])
def test_an_empty_selection_is_none_and_not_all(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^tasks is empty; name at least one, or give None for all$"):
        arguments.selection("tasks", given)
    with pytest.raises(ConfigError, match=r"^docs is empty"):
        arguments.numbers("docs", given)


def test_numbers_of_numpy_are_numbers() -> None:
    assert arguments.numbers("docs", np.arange(3)) == (0, 1, 2)
    assert arguments.count_or_none("budget", np.int64(5)) == 5
    assert arguments.selection("tasks", np.array(["a"])) == ("a",)
    assert arguments.share("margin", np.float64(0.25)) == 0.25


@pytest.mark.parametrize(
    ("check", "given", "said"),
    [
        (arguments.selection, "sim-01@a", "is 'sim-01@a'; give a list of texts, or None for all"),
        (arguments.selection, b"ab", "is b'ab'; give a list of texts, or None for all"),
        (arguments.selection, 5, "is 5; give a list of texts, or None for all"),
        (arguments.selection, ["a", None], r"\[1\] is None; give a text"),
        (arguments.numbers, 3, "is 3; give a list of ids, or None for all"),
        (arguments.numbers, ["3"], r"\[0\] is '3'; give an id of at least 0"),
        (arguments.numbers, [1, -1], r"\[1\] is -1; give an id of at least 0"),
        (arguments.count_or_none, "5", "is '5'; give a number of relays of at least 0, or None"),
        (arguments.count_or_none, 1.5, "is 1.5; give a number of relays of at least 0, or None"),
        (arguments.count_or_none, math.nan, "is no finite number; give a number of relays"),
        (arguments.count_or_none, True, "is True; give a number of relays"),
        (arguments.count_or_none, -1, "is -1; give a number of relays of at least 0"),
        (arguments.flag, "no", "is 'no'; give True or False"),
        (arguments.flag, 0, "is 0; give True or False"),
        (arguments.flag, None, "is None; give True or False"),
        (arguments.text, None, "is None; give a text"),
        (arguments.text_or_none, 5, "is 5; give a text, or None"),
        (arguments.share, 3, "is 3; give a number between 0 and 1"),
        (arguments.share, True, "is True; give a number between 0 and 1"),
        (arguments.share, "0.1", "is '0.1'; give a number between 0 and 1"),
        (arguments.share, math.nan, "is no finite number; give a number between 0 and 1"),
        (arguments.share, 0, "is 0; give a number between 0 and 1"),
        (arguments.path, 5, "is 5; give a path"),
        (arguments.path, "", "is ''; give a path"),
        (arguments.path, b"x", "is b'x'; give a path"),
        (arguments.path, "a\0b", r"is 'a\\x00b'; give a path"),
        (arguments.file, ".", "is '.'; give the path of a file"),
        (arguments.file, "/", "is '/'; give the path of a file"),
        (arguments.file, "a/..", "is 'a/..'; give the path of a file"),
        (arguments.callback, 5, "is 5; give a function, or None"),
    ],
)
def test_anything_else_is_refused(check: Callable[[str, Any], object], given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^it{'' if said.startswith(chr(92)) else ' '}{said}"):
        check("it", given)


def test_the_least_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^max_mb is 0; give a number of MiB of at least 1$"):
        arguments.count("max_mb", 0, "MiB", least=1)
    assert arguments.count("max_mb", 1, "MiB", least=1) == 1


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as told:
        arguments.text("it", ["x" * 10_000])
    assert len(str(told.value)) < 120


def test_what_is_right_is_passed_on() -> None:
    assert arguments.path("out", "a/b") == arguments.path("out", Path("a/b")) == Path("a/b")
    assert arguments.file("out", "a/b.zip") == Path("a/b.zip")
    assert arguments.flag("force", True) is True
    arguments.callback("on_note", print)
