"""Who is asked what: of which suppliers a task is asked, as configured.

The patterns are those of ``tasks[].services``, ``tasks[].suppliers`` and ``suppliers[].tasks``. They say what
is asked, not what a task is: no hash depends on them, and whoever is asked again later goes on from what it
answered before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from testbench_dagster.core.supplier import Supplier

#: How a pattern begins that leaves out what it matches.
EXCEPT = "!"

Patterns = tuple[str, ...]
"""Shell patterns (``*``, ``?``, ``[ab]``), in which case matters; those with ``!`` in front leave out."""


def plain_pattern(pattern: str) -> str:
    """A pattern without the mark of those that leave out."""
    return pattern.removeprefix(EXCEPT)


def matches_any(pattern: str, names: Collection[str]) -> bool:
    """Whether a pattern, whether it takes in or leaves out, is about one of some names."""
    plain = plain_pattern(pattern)
    return any(fnmatchcase(name, plain) for name in names)


def is_chosen(patterns: Sequence[str] | None, names: Collection[str]) -> bool:
    """Whether patterns choose what goes by some names; None chooses everything.

    It is chosen where one of the names matches a pattern that takes in, or all patterns leave out, and none
    matches a pattern that leaves out. The order of the patterns means nothing.
    """
    if patterns is None:
        return True
    excepted = [pattern for pattern in patterns if pattern.startswith(EXCEPT)]
    taken_in = [pattern for pattern in patterns if not pattern.startswith(EXCEPT)]
    if taken_in and not any(matches_any(pattern, names) for pattern in taken_in):
        return False
    return not any(matches_any(pattern, names) for pattern in excepted)


@dataclass(frozen=True, slots=True)
class Applicability:
    """Of which suppliers a task is asked.

    ``services`` are patterns of services, ``suppliers`` of supplier keys (``address@service``); None for all.
    ``declined_by`` are the keys of configured suppliers whose own ``tasks`` leave the task out. Nobody at all
    is asked where ``nobody``, and where ``chat_alone`` only those whose API is chat.
    """

    services: Patterns | None = None
    suppliers: Patterns | None = None
    declined_by: frozenset[str] = frozenset()
    nobody: bool = False
    chat_alone: bool = False

    @property
    def for_everybody(self) -> bool:
        """Whether nothing leaves anybody out."""
        chosen = self.services is not None or self.suppliers is not None or bool(self.declined_by)
        return not (chosen or self.nobody or self.chat_alone)

    def why_not(self, supplier: Supplier) -> str | None:
        """Which setting leaves a supplier out, in words; None where the task is asked of it."""
        if self.for_everybody:
            return None
        if self.nobody:
            return "the configuration leaves it out"
        if self.chat_alone and supplier.api != "chat":
            return f"choices_on_chat is for chat, and the API of {supplier.key} is {supplier.api}"
        if not is_chosen(self.services, (supplier.service,)):
            return f"the task's services leave {supplier.service} out"
        if not is_chosen(self.suppliers, (supplier.key,)):
            return f"the task's suppliers leave {supplier.key} out"
        if supplier.key in self.declined_by:
            return f"the tasks of supplier {supplier.key} leave it out"
        return None


#: Every supplier is asked.
EVERYBODY = Applicability()
#: No supplier is asked.
NOBODY = Applicability(nobody=True)
