"""What a snapshot keeps: small, and read back as it was to seven digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.snapshot_rows import SnapshotRow, pack_rows, unpack_rows

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
NUMBERS = st.none() | st.floats(-1e30, 1e30, allow_nan=False)
WHOLES = st.integers(0, 2**32 - 1)


@st.composite
def rows(draw: st.DrawFn) -> SnapshotRow:
    of_task = draw(st.booleans())
    return SnapshotRow(
        task=draw(NAMES) if of_task else None,
        taxonomy=None if of_task else draw(NAMES),
        node=None if of_task else draw(NAMES),
        metric=draw(st.none() | NAMES),
        filter=draw(st.none() | NAMES),
        score=draw(NUMBERS),
        ci_low=draw(NUMBERS),
        ci_high=draw(NUMBERS),
        n=draw(WHOLES),
        n_failed=draw(WHOLES),
        p50_ms=draw(NUMBERS),
        p95_ms=draw(NUMBERS),
    )


@given(st.lists(rows(), max_size=40))
def test_rows_come_back_to_seven_digits(given: list[SnapshotRow]) -> None:
    found = unpack_rows(pack_rows(given))
    assert len(found) == len(given)
    for was, now in zip(given, found, strict=True):
        for name, before, after in zip(SnapshotRow._fields, was, now, strict=True):
            if isinstance(before, float):
                # the least numbers that 32 bits hold have fewer digits
                assert after == pytest.approx(before, rel=1e-6, abs=1e-37), name
            else:
                assert after == before, name


def test_usual_scores_come_back_exactly() -> None:
    scores = [k / n for n in (50, 100, 200) for k in range(n + 1)]
    given = [SnapshotRow("t", None, None, "acc", "none", s, None, None, 1, 0, None, None) for s in scores]
    assert [round(row.score or 0.0, 6) for row in unpack_rows(pack_rows(given))] == [
        round(s, 6) for s in scores
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_no_score_is_counts_as_none(value: float) -> None:
    [row] = unpack_rows(
        pack_rows([SnapshotRow("t", None, None, "m", "f", value, value, value, 1, 0, value, value)])
    )
    assert (row.score, row.ci_low, row.ci_high, row.p50_ms, row.p95_ms) == (None,) * 5


def test_a_hundred_tasks_and_thirty_nodes_fit_into_the_space_they_are_given() -> None:
    """8 GB a year at 5,000 suppliers: 4.4 kB a supplier and day, with names and what surrounds them."""
    tasks = [
        SnapshotRow(
            f"leaderboard_subject_{i * 7919 % 997}",
            None,
            None,
            "acc_norm",
            "none",
            (i * 37 % 101) / 101,
            (i * 31 % 89) / 97,
            (i * 29 % 83) / 83.7,
            150 + i % 50,
            i % 7,
            812.25 + i * 17.3,
            4096.5 + i * 91.7,
        )
        for i in range(100)
    ]
    nodes = [
        SnapshotRow(
            None, "general", f"ability {i}", None, None, i / 37, i / 41, i / 31, 900 + i, 3, None, None
        )
        for i in range(30)
    ]
    assert len(pack_rows([*tasks, *nodes])) < 3_700


def test_rows_of_a_later_version_are_refused() -> None:
    with pytest.raises(ValueError, match="format 09; this version knows 1"):
        unpack_rows(b"\x09rest")
    with pytest.raises(ValueError, match="format none"):
        unpack_rows(b"")
