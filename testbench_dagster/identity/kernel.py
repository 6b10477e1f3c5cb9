"""What is compared of two answers: how they begin.

Equality of the first characters, white space collapsed, is all that decides; the length of the common prefix
is for display. A prefix shorter than the compared characters says nothing of who wrote it (one-letter
answers of multiple choice), neither for nor against.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.identity.settings import IdentityError


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered attempt at temperature 0.

    ``prompt`` identifies a text that all suppliers were sent alike, ``family`` the task it belongs to,
    ``round`` which repetition of it this was; ``at`` is when the answer came, with a time zone.
    ``answer_prefix`` is the start of its text, at most 64 characters, white space collapsed.
    """

    supplier: str
    prompt: str
    family: str
    at: datetime
    round: int
    answer_prefix: str


def moment(field: str, value: datetime) -> datetime:
    """The instant itself. Raises IdentityError for one without a time zone."""
    if value.tzinfo is None:
        raise IdentityError(f"{field} {value.isoformat()} has no time zone; give it one, such as UTC")
    return value


def kernel(answer_prefix: str, chars: int) -> str | None:
    """What is compared of an answer prefix: its first ``chars`` characters; None when it has fewer."""
    return answer_prefix[:chars] if len(answer_prefix) >= chars else None
