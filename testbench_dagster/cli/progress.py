"""How far an evaluation is: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from testbench_dagster.cli.output import note
from testbench_dagster.core.wording import counted, duration

if TYPE_CHECKING:
    from testbench_dagster.relays.report import LanePace, Progress
    from testbench_dagster.tasks.worker import Waiting

#: Seconds between two lines where there is no terminal; those who look for a sign of life wait 10.
TELL_EVERY_S = 8.0


class RelayBar:
    """A bar on stderr while relays run, if that is a terminal; notes are printed in its place.

    Where it is none, a line tells every few seconds how far they are, or what else is done; none while there
    is nothing to do but wait for an hour to come. ``quiet``: neither bar nor lines, only notes.
    """

    def __init__(self, *, quiet: bool = False, every_s: float = TELL_EVERY_S) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
        from rich.text import Text

        class Count(MofNCompleteColumn):
            """How many of how many; nothing while nobody knows of how many."""

            def render(self, task: Task) -> Text:
                return Text("") if task.total is None else super().render(task)

        terminal = sys.stderr.isatty()
        console = Console(file=_screen() if terminal else sys.stderr, force_terminal=terminal or None)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            Count(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}", markup=False, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )
        self._bar = Bar(*columns, console=console, disable=quiet or not console.is_terminal, expand=True)
        self._task = self._bar.add_task("relays", total=None, rate="")
        self._width = console.width
        self._silent = not quiet and not console.is_terminal
        self._every_s = every_s
        self._stage, self._began, self._planned = "", 0.0, 0
        self._progress: Progress | None = None
        self._scored: tuple[int, int] | None = None
        self._waiting: Waiting | None = None
        self._paces: set[str] = set()  # accounts whose pace was told
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="testbench-progress", daemon=True)

    def __enter__(self) -> RelayBar:
        if self._silent:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def stage(self, text: str) -> None:
        """Say what begins; with an empty text that nothing does."""
        self._progress = self._scored = self._waiting = None
        self._stage, self._began = text, time.monotonic()
        if text:
            self._bar.remove_task(self._task)  # a known total cannot be taken back
            self._task = self._bar.add_task(text, total=None, rate="")
            self._bar.start()
        else:
            self._bar.stop()

    def planned(self, calls: int) -> None:
        """Begin anew for so many calls."""
        self.stage(f"relays: {counted(calls, 'call')} planned")
        self._planned = calls
        self._bar.update(self._task, total=calls, description="relays")

    def progressed(self, progress: Progress) -> None:
        """Show how far they are."""
        self._progress = progress
        rate = progress.sent / progress.seconds if progress.seconds else 0.0
        told = (f"{rate:.0f}/s, {progress.in_flight} in flight", waits_text(progress), pace_text(progress))
        room = max(20, self._width - 36)  # beside the numbers, the time and what is left of the bar
        text = "; ".join(part for part in told if part)
        text = text if len(text) <= room else f"{text[: room - 1]}…"
        self._bar.update(self._task, completed=progress.final, rate=text)
        if self._silent and progress.sent:
            for lane in progress.paces:
                if lane.account not in self._paces:
                    self._paces.add(lane.account)
                    note(f"evaluation: {_pace(lane)}")

    def scored(self, done: int, total: int) -> None:
        """Show how far scoring is."""
        if self._scored is None:
            self.stage("scores")
        self._scored = (done, total)
        self._bar.start()
        self._bar.update(self._task, description="scores", total=total, completed=done, rate="docs")

    def waiting(self, waiting: Waiting | None) -> None:
        """Show which task's framework is waited for; None where none is any more."""
        self._waiting = waiting
        if not self._silent and self._stage and self._progress is None and self._scored is None:
            told = self._stage if waiting is None else f"{self._stage}: {waiting}"
            self._bar.update(self._task, description=told)

    def stopping(self) -> None:
        """Say that an interrupt was heard."""
        self.note("stopping: nothing is sent any more; what is stored is scored (Ctrl-C again ends at once)")

    def note(self, text: str) -> None:
        """Say something to the person at the terminal."""
        self._bar.stop()
        note(text)

    def _tell(self) -> None:
        while not self._ended.wait(self._every_s):
            if line := self._line():
                note(line)

    def _line(self) -> str:
        """How far the evaluation is, in a line; empty where nothing is done."""
        progress, scored, waiting = self._progress, self._scored, self._waiting
        waits = "" if waiting is None else f"; waits for {waiting}, for {duration(waiting.seconds)}"
        if progress is not None:
            return progress_text(progress, self._planned) + waits
        if scored is not None:
            return f"scores: {scored[0]} of {counted(scored[1], 'doc')} scored{waits}"
        if not self._stage:
            return ""
        if waits:
            return f"{self._stage}{waits}"
        seconds = time.monotonic() - self._began
        return f"{self._stage}, for {duration(seconds)}" if seconds >= 1 else self._stage


def _screen() -> TextIO:
    """The terminal itself: while a step runs, Dagster puts a file in the place of this process's stderr."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
    except (OSError, ValueError):  # no file of the system: somebody looks on
        return sys.stderr


def progress_text(progress: Progress, planned: int) -> str:
    """How many of the planned calls are done, how fast, until when, and who is waited for, in a line."""
    told = [f"relays: {progress.final} of {counted(planned, 'call')} done"]
    if progress.seconds:
        told.append(f"{progress.sent / progress.seconds:.1f}/s")
    left = planned - progress.final
    if progress.final and left > 0:
        told.append(f"about {duration(left * progress.seconds / progress.final)} left")
    told.append(f"{progress.in_flight} in flight")
    waits, paces = waits_text(progress), pace_text(progress)
    return ", ".join(told) + (f"; {waits}" if waits else "") + (f"; {paces}" if paces else "")


def waits_text(progress: Progress) -> str:
    """Who is waited for, why and until when; empty where nobody is."""
    if not progress.waits:
        return ""
    first = progress.waits[0]
    more = f" and {progress.n_waits - 1} more" if progress.n_waits > 1 else ""
    return f"waits for {first.supplier} ({first.fault.value}) until {first.until.astimezone():%H:%M:%S}{more}"


def pace_text(progress: Progress) -> str:
    """Who is asked at its pace, and when that is done; empty where nobody is."""
    if not progress.paces:
        return ""
    last = max(progress.paces, key=lambda lane: lane.done_at.timestamp() if lane.done_at else 0.0)
    more = f" and {len(progress.paces) - 1} more" if len(progress.paces) > 1 else ""
    return f"{_pace(last)}{more}"


def _pace(lane: LanePace) -> str:
    n = len(lane.suppliers)
    who = (
        f"{lane.suppliers[0]} is asked at its pace"
        if n == 1
        else f"{counted(n, 'supplier')} are asked at their pace"
    )
    done = f"; done about {lane.done_at.astimezone():%H:%M}" if lane.done_at else ""
    return f"{who} of {lane.words}{done}"
