"""Text as pages show it: made inert, cut, and with its lines where it has some."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.wording import counted
from testbench_dagster.ranking.cells import age_seconds, duration_text

_LINES = "\n\t"
#: Characters of a long text that a list shows; its own page shows all of it, up to :data:`WHOLE`.
EXCERPT, WHOLE = 1_200, 60_000


def prose(value: object, limit: int = WHOLE) -> str:
    """A text with its lines, cut in the middle; invisible and direction-changing characters replaced."""
    shown = "" if value is None else str(value)
    if len(shown) > limit:
        left = limit // 3
        cut = len(shown) - limit
        told = f"… {counted(cut, 'character', ',')} left out …"
        shown = f"{shown[:left]}\n{told}\n{shown[len(shown) - (limit - left) :]}"
    shown = shown.replace("\r\n", "\n")
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in _LINES else "\N{REPLACEMENT CHARACTER}" for c in shown)


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago something was."""
    return duration_text(age_seconds(now, at))


def moment(at: datetime | None) -> str:
    """An instant to the second, in UTC."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
