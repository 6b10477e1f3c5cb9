"""Small matters of English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import testbench_dagster
from testbench_dagster.core.wording import agreeing, are, counted, duration, money


def test_one_is_singular_and_all_others_are_plural() -> None:
    assert [counted(n, "doc") for n in (0, 1, 2)] == ["0 docs", "1 doc", "2 docs"]
    assert counted(1_234_567, "byte", ",") == "1,234,567 bytes"
    assert counted(1.0, "day", "g") == "1 day" and counted(0.5, "day", "g") == "0.5 days"
    assert [are(n) for n in (0, 1, 2)] == ["are", "is", "are"]
    assert [agreeing(n, "doc waits", "docs wait") for n in (1, 3)] == ["1 doc waits", "3 docs wait"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (182, "3 m 02 s"),
        (3599.7, "1 h 00 m"),
        (7500, "2 h 05 m"),
        (86399.9, "1 d 00 h"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 10**9, allow_nan=False))
def test_a_length_of_time_says_nearly_what_it_was(seconds: float) -> None:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"(\d+) ([smhd])", duration(seconds))
    said = sum(int(n) * units[unit] for n, unit in parts)
    assert abs(said - seconds) <= units[parts[-1][1]]


PACKAGE = Path(testbench_dagster.__file__).parent
COUNTED = [
    "answer", "application", "attempt", "block", "byte", "call", "canary", "change", "character", "column",
    "day", "doc", "endpoint", "entry", "epoch", "example", "file", "gate", "group", "hour", "key", "line",
    "member", "minute", "model", "node", "option", "other", "pair", "part", "partition", "place", "point",
    "probe", "problem", "prompt", "question", "relay", "request", "row", "run", "sample", "score", "second",
    "service", "session", "signature", "step", "store", "supplier", "task", "thing", "token", "unit",
    "window", "witness",
]  # fmt: skip
PLURAL = {"canary": "canaries", "entry": "entries", "witness": "witnesses"}
#: A plural behind a number, with a word between them at most: ``3 open docs``.
BEHIND = re.compile(rf"^ (?:[a-z]+ )?(?:{'|'.join(PLURAL.get(noun, noun + 's') for noun in COUNTED)})\b")
#: What stands before such a word and is no number, or is one that is never 1.
NO_NUMBERS = {
    ("defs/catalog/checks.py", "api"),
    ("defs/operations/change_alerts.py", "change.supplier"),
    ("identity/changes.py", "at"),
    ("localnet/control.py", "self.block_s"),
    ("localnet/pocket/clock.py", "self.block_s"),
    ("localnet/solving.py", "n"),  # a pattern: of questions
    ("planning/gates.py", "name"),
    ("stages/relay/probe.py", "self._target.base_url"),
    ("stages/relay/probe.py", "self._supplier.address"),
    ("stages/identify/splits.py", "counted(one.docs, 'common doc')"),
    ("tasks/chat_choice/convert.py", "len(LETTERS)"),
    ("tasks/given.py", "where"),
    ("tasks/starter/generate.py", "made.stat().st_size"),
    ("tasks/tools/generate.py", "made.stat().st_size"),
    ("transports/answers.py", "len(calls)"),
    ("transports/pocket/staked.py", "escaped(url, _SHOWN_CHARS)"),
}


def uncounted(source: str) -> Iterator[str]:
    """What of a source puts a plural behind whatever number, constants aside."""
    for text in ast.walk(ast.parse(source)):
        if isinstance(text, ast.JoinedStr):
            for value, behind in zip(text.values, text.values[1:], strict=False):
                if not isinstance(value, ast.FormattedValue) or not isinstance(behind, ast.Constant):
                    continue
                name = ast.unparse(value.value)
                if BEHIND.match(str(behind.value)) and not name.rpartition(".")[2].isupper():
                    yield name


def test_texts_say_one_supplier_and_not_one_suppliers() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        if "questions" not in path.parts  # of tasks: their texts are data, in which numbers are above one
        for name in uncounted(path.read_text("utf-8"))
    }
    assert found == NO_NUMBERS, "say counted(n, noun), or name what is no number here"


def test_pages_say_so_too() -> None:
    pages = sorted(PACKAGE.rglob("*.jinja"))
    assert pages
    for page in pages:
        found = re.findall(r"\{\{([^{}]*)\}\}( [a-z]+(?: [a-z]+)?)", page.read_text("utf-8"))
        assert [value for value, behind in found if BEHIND.match(behind)] == [], page.name


def test_the_search_finds_what_it_looks_for() -> None:
    found = """f"{n} suppliers" f"{len(x):,} open docs" f"{counted(n, 'doc')} left" f"{a.MAX} bytes" f"{n} in"
f"{n} entries and {m} witnesses" """
    assert list(uncounted(f"({found})")) == ["n", "len(x)", "n", "m"]


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (None, "–"),
        (0, "0"),
        (1234.567, "1,234.57"),
        (1, "1.00"),
        (0.5, "0.500"),
        (0.01234, "0.0123"),
        (0.00001, "0.0000100"),
        (1e-30, "0.000000000000"),
    ],
)
def test_money_is_told_to_cents_and_little_of_it_to_three_digits(amount: float | None, told: str) -> None:
    assert money(amount) == told
