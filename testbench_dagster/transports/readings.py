"""What reading an answer takes besides status and body: kept as evidence, so that it reads the same later.

``charset`` is what the Content-Type of an answer declared, where that is not UTF-8; ``generation`` how its
request differed from the task's; ``tags`` whether thoughts between tags are no part of the answer, as they
were before classifier 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict

from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration, generation_of
from testbench_dagster.transports.lenient_json import declared_charset

#: The classifier from which on thoughts between tags are no part of an answer.
FIRST_WITHOUT_TAGS = 3
#: Name of the charset in the evidence of attempts.
CHARSET = "charset"


class Reading(TypedDict):
    """Keyword arguments of :func:`~testbench_dagster.transports.answers.parse_answer`."""

    charset: str | None
    generation: SupplierGeneration
    tags: bool


#: Of an answer that declares no charset, to a request as the task says.
PLAINLY = Reading(charset=None, generation=AS_THE_TASK_SAYS, tags=True)


def note_charset(evidence: dict[str, Any], content_type: str | None) -> str | None:
    """Return the charset that an answer declares, and put it into its evidence; None where it is UTF-8."""
    charset = declared_charset(content_type)
    if charset is not None:
        evidence[CHARSET] = charset
    return charset


class Stored(Protocol):
    """An attempt, or what of one is needed here."""

    @property
    def classifier(self) -> int | None:
        """Version of what decided its fault; None for the first."""
        ...

    @property
    def evidence(self) -> Mapping[str, Any]:
        """What its transport saw."""
        ...


def reading_of(attempt: Stored) -> Reading:
    """How a stored attempt is read.

    Anybody may have written it: what it says of settings or charsets that there are not counts as not said.
    """
    charset = attempt.evidence.get(CHARSET)
    tags = (attempt.classifier or 1) >= FIRST_WITHOUT_TAGS
    try:
        generation = generation_of(attempt.evidence)
    except ValueError:
        generation = AS_THE_TASK_SAYS
    # by the same list as on arrival
    known = None if charset is None else declared_charset(f";charset={charset}")
    return Reading(charset=known, generation=generation, tags=tags)
