"""Whether calls and values are those that are wanted: pure functions of JSON values.

Texts are alike whatever their case, numbers by value (5 and 5.0, not 1 and true). A wanted call is
``{"name": …, "arguments": {…}, "also": {argument: [values]}, "optional": [arguments]}``: ``also`` holds
further values that are as good, ``optional`` what may be left out. What the tool's schema gives a default
may be left out where the default is wanted, and be given as the default where nothing is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Classes of JSON values that hold no others.
_SINGLE = frozenset({str, int, float, bool, type(None)})


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same but for the case of texts and the kind of numbers."""
    kind = type(one)
    if kind is type(other) and kind in _SINGLE and one == other:  # nearly always
        return True
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str):
        return isinstance(other, str) and (one == other or _folded(one) == _folded(other))
    if isinstance(one, (int, float)):
        return isinstance(other, (int, float)) and one == other
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(alike(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    return one is None and other is None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call that is wanted, and by argument the values that are accepted; ``optional`` may be absent."""

    name: str
    accepted: Mapping[str, Sequence[Any]]
    optional: frozenset[str]

    @classmethod
    def from_gold(cls, gold: Mapping[str, Any], parameters: Mapping[str, Any]) -> WantedCall:
        """The call of a doc's gold, with what the schema of its tool says about defaults."""
        also, optional = gold.get("also") or {}, set(gold.get("optional") or ())
        accepted = {
            name: [value, *(also.get(name) or ())] for name, value in (gold.get("arguments") or {}).items()
        }
        for name, values in also.items():
            if name not in accepted:  # it is absent from the reference call
                accepted[name] = list(values)
                optional.add(name)
        required = parameters.get("required") or ()
        for name, schema in (parameters.get("properties") or {}).items():
            if name in required or not isinstance(schema, Mapping) or "default" not in schema:
                continue
            default = schema["default"]
            if name not in accepted:
                accepted[name] = [default]
                optional.add(name)
            elif any(alike(default, value) for value in accepted[name]):
                optional.add(name)
        return cls(gold["name"], accepted, frozenset(optional))

    def is_met(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether a call is this one."""
        if name != self.name or not arguments.keys() <= self.accepted.keys():
            return False
        for argument, values in self.accepted.items():
            if argument not in arguments:
                if argument not in self.optional:
                    return False
            elif not _is_one_of(values, arguments[argument]):
                return False
        return True


def _is_one_of(values: Sequence[Any], given: Any) -> bool:
    for value in values:  # noqa: SIM110  any(…) of a generator takes twice as long
        if alike(given, value):
            return True
    return False


def all_met(wanted: Sequence[WantedCall], made: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Whether each wanted call was made by one call of its own, in any order, and none beside them."""
    if len(wanted) != len(made):
        return False
    fits = [[n for n, call in enumerate(made) if one.is_met(*call)] for one in wanted]
    taken_by: dict[int, int] = {}

    def placed(one: int, tried: set[int]) -> bool:
        """Give a wanted call a made one, moving others where that takes it."""
        for place in fits[one]:
            if place not in tried:
                tried.add(place)
                if place not in taken_by or placed(taken_by[place], tried):
                    taken_by[place] = one
                    return True
        return False

    return all(placed(one, set()) for one in range(len(wanted)))
