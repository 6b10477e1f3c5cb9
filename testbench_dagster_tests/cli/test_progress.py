"""How far a run is: said in lines where there is no terminal, and by a bar where there is one."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.cli.progress import TELL_EVERY_S, RelayBar, pace_text, progress_text, waits_text
from testbench_dagster.core.faults import Fault
from testbench_dagster.relays.report import LanePace, LaneWait, Progress
from testbench_dagster.tasks.worker import Waiting


def test_the_terminal_says_who_waits_why_and_until_when() -> None:
    until = datetime.now(UTC) + timedelta(seconds=40)
    wait = LaneWait("a@x", Fault.RATE_LIMITED, until)
    assert waits_text(Progress(1, 1, 0, 0, 1.0)) == ""
    one = waits_text(Progress(1, 1, 0, 0, 1.0, (wait,), 1, 0))
    assert one == f"waits for a@x (rate_limited) until {until.astimezone():%H:%M:%S}"
    assert waits_text(Progress(1, 1, 0, 0, 1.0, (wait,), 4, 0)) == f"{one} and 3 more"


def test_the_terminal_says_who_is_asked_at_its_pace(capsys: pytest.CaptureFixture[str]) -> None:
    done = datetime.now(UTC) + timedelta(minutes=40)
    one = LanePace("supplier:a@x", ("a@x",), "20 requests a minute", done)
    two = LanePace("service:s", ("b@s", "c@s"), "60 requests a minute", None)
    assert pace_text(Progress(1, 1, 0, 0, 1.0)) == ""
    told = f"a@x is asked at its pace of 20 requests a minute; done about {done.astimezone():%H:%M}"
    assert pace_text(Progress(1, 1, 0, 0, 1.0, paces=(one,))) == told
    assert pace_text(Progress(1, 1, 0, 0, 1.0, paces=(two, one))) == f"{told} and 1 more"
    with RelayBar() as bar:
        for _ in range(3):
            bar.progressed(Progress(1, 1, 0, 0, 1.0, paces=(one, two)))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"evaluation: {told}",
        "evaluation: 2 suppliers are asked at their pace of 60 requests a minute",
    ]


def test_the_task_that_is_waited_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting("own", "endless", "register", 65.0)
    with RelayBar(every_s=3600.0) as bar:
        bar.stage("catalog: preparing")
        bar.waiting(waiting)
        said = "waits for task 'endless', register() of framework 'own', for 1 m 05 s"
        assert bar._line() == f"catalog: preparing; {said}"
        bar.scored(3, 9)
        bar.waiting(waiting)
        assert bar._line() == f"scores: 3 of 9 docs scored; {said}"
        bar.waiting(None)
        assert "endless" not in bar._line()


def test_a_line_says_how_many_how_fast_until_when_and_who_is_waited_for() -> None:
    until = datetime.now(UTC) + timedelta(seconds=40)
    wait = LaneWait("a@x", Fault.RATE_LIMITED, until)
    assert progress_text(Progress(60, 50, 4, 0, 10.0), 150) == (
        "relays: 50 of 150 calls done, 6.0/s, about 20 s left, 4 in flight"
    )
    assert progress_text(Progress(0, 0, 1, 0, 0.0), 1) == "relays: 0 of 1 call done, 1 in flight"
    told = progress_text(Progress(9, 9, 0, 1, 10.0, (wait,), 1, 0), 10)
    assert told.endswith(f"in flight; waits for a@x (rate_limited) until {until.astimezone():%H:%M:%S}")


def told_by(capsys: pytest.CaptureFixture[str], work: Any, *, quiet: bool = False) -> list[str]:
    with RelayBar(quiet=quiet, every_s=0.05) as bar:
        work(bar)
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_lines_follow_each_other_while_something_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(bar: RelayBar) -> None:
        bar.stage("catalog: preparing")
        time.sleep(0.2)
        bar.planned(2)
        bar.progressed(Progress(1, 1, 1, 0, 1.0))
        time.sleep(0.2)
        bar.scored(1, 2)
        time.sleep(0.2)

    said = told_by(capsys, work)
    assert list(dict.fromkeys(said)) == [
        "catalog: preparing",
        "relays: 1 of 2 calls done, 1.0/s, about 1 s left, 1 in flight",
        "scores: 1 of 2 docs scored",
    ]
    assert all(said.count(line) >= 2 for line in said)
    assert TELL_EVERY_S < 10, "a look every ten seconds finds a new line"


def test_nothing_is_said_while_nothing_is_done_nor_where_that_is_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def idle(bar: RelayBar) -> None:
        bar.progressed(Progress(1, 1, 0, 0, 1.0))
        bar.stage("")
        time.sleep(0.2)

    def busy(bar: RelayBar) -> None:
        bar.stage("catalog: preparing")
        time.sleep(0.2)

    assert told_by(capsys, idle) == []
    assert told_by(capsys, busy, quiet=True) == []


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_bar_takes_one_line_of_any_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    wait = LaneWait("a-supplier-with-a-long-name@a-service", Fault.RATE_LIMITED, datetime.now(UTC))
    with RelayBar() as bar:
        bar.planned(123_456)
        bar.progressed(Progress(500, 12_345, 500, 3, 10.0, (wait,), 12, 0))
        bar._bar.refresh()
    from rich.text import Text

    lines = [line for line in Text.from_ansi(screen.getvalue()).plain.splitlines() if "12345/123456" in line]
    assert lines and all(len(line.rstrip()) <= width for line in lines)
    assert all("/s, 500" in line for line in lines), "the numbers stay"


@given(
    planned=st.integers(0, 10**9),
    sent=st.integers(0, 10**9),
    final=st.integers(0, 10**9),
    seconds=st.floats(0, 10**7, allow_nan=False),
)
def test_any_progress_makes_one_line(planned: int, sent: int, final: int, seconds: float) -> None:
    text = progress_text(Progress(sent, final, 0, 0, seconds), planned)
    assert "\n" not in text and text.startswith(f"relays: {final} of {planned} call")
