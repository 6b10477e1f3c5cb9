"""``testbench scores``: primary rows first, what cut them, and the rest below."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from testbench_dagster.cli.show import _CUTS_TOLD, _show

CUT = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)


def row(
    task: str,
    metric: str,
    *,
    primary: bool,
    cut: bool = False,
    framework: str = "lm_eval",
    kind: str = "task",
) -> dict[str, Any]:
    empty = ("ci_low", "ci_high", "errors", "n_planned", "score_answered", "next_attempt_at")
    return {
        **dict.fromkeys(empty),
        "supplier": "a@x",
        "model": "m",
        "task": task,
        "framework": framework,
        "kind": kind,
        "metric": metric,
        "filter": "none",
        "primary": primary,
        "status": "ok",
        "score": 0.5,
        "n": 3,
        "n_failed": 0,
        "n_open": 0,
        "cut_at": CUT.isoformat() if cut else None,
    }


def test_primary_rows_stand_first_and_others_in_a_table_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        row("t1", "acc", primary=True),
        row("t1", "acc_norm", primary=False),
        row("t2", "acc", primary=True),
        row("t2", "bleu", primary=False),
    ]
    _show(rows, [])
    first, below, rest = capsys.readouterr().out.partition("By other metrics and filters")
    assert below and first.startswith("Scores")
    assert [line.split("│")[3].strip() for line in first.splitlines() if "a@x" in line] == ["t1", "t2"]
    told = [[cell.strip() for cell in line.split("│")[3:5]] for line in rest.splitlines() if "a@x" in line]
    assert told == [["t1", "acc_norm"], ["t2", "bleu"]], "what tells them apart follows the task"
    assert "cut_at" not in first and "cut_at" not in rest


def test_groups_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row("t1", "acc", primary=True),
        row("g", "acc", primary=True, kind="group"),
        row("g", "acc_norm", primary=False, kind="group"),
    ]
    _show(rows, [])
    first, _, rest = capsys.readouterr().out.partition("Groups, as lm-eval aggregates them")
    groups, _, others = rest.partition("By other metrics and filters")
    shown = [
        [line.split("│")[3].strip() for line in part.splitlines() if "a@x" in line]
        for part in (first, groups, others)
    ]
    assert shown == [["t1"], ["g"], ["g"]]


def test_a_task_of_one_metric_has_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    _show([row("t1", "acc", primary=True)], [])
    assert "By other" not in capsys.readouterr().out


def test_what_cut_the_rows_is_in_the_table_and_why_below(capsys: pytest.CaptureFixture[str]) -> None:
    _show(
        [row("t1", "acc", primary=True, cut=True)], [{"supplier": "a@x", "cut_at": CUT, "reason": "it fell"}]
    )
    shown = capsys.readouterr()
    assert "cut_at" in shown.out and "2026-03-01 12:34" in shown.out
    assert shown.err == "a@x: what it answered up to 2026-03-01 12:34 UTC does not count: it fell\n"


@pytest.mark.parametrize(("more", "told"), [(1, "1 other likewise"), (2, "2 others likewise")])
def test_not_all_reasons_of_many_are_told(capsys: pytest.CaptureFixture[str], more: int, told: str) -> None:
    cuts = [{"supplier": "a@x", "cut_at": CUT, "reason": "it fell"}] * (_CUTS_TOLD + more)
    _show([row("t1", "acc", primary=True, cut=True)], cuts)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == _CUTS_TOLD + 1 and said[-1].startswith(told)
