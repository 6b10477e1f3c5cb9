"""Many answers in little memory: a column each, where a list of objects would take ten times as much."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from testbench_dagster.identity.kernel import Answer, moment

if TYPE_CHECKING:
    import numpy as np

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """An instant with a time zone in microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def instant(at: int) -> datetime:
    """The instant, in UTC, so many microseconds after the beginning of 1970."""
    return _EPOCH + at * _MICROSECOND


class AnswerTable(Iterable[Answer]):
    """Answers at temperature 0, in any order; they can be gone through again, all or one supplier's.

    ``by``, ``to`` and ``began`` are columns of numbers of ``suppliers``, ``prompts`` and ``prefixes``; ``at``
    is in microseconds since 1970, ``rounds`` which repetition an answer belongs to. ``families`` are named by
    the numbers in ``family_of``, one for each prompt.
    """

    def __init__(
        self,
        suppliers: Sequence[str],
        prompts: Sequence[str],
        families: Sequence[str],
        family_of: Sequence[int],
        prefixes: Sequence[str],
        columns: Mapping[str, np.ndarray],
    ) -> None:
        self.suppliers, self.prompts = suppliers, prompts
        self.families, self.family_of, self.prefixes = families, family_of, prefixes
        self._columns = columns
        self.by, self.to, self.began = columns["by"], columns["to"], columns["began"]
        self.at, self.rounds = columns["at"], columns["rounds"]

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> AnswerTable:
        """The answers. Raises IdentityError for times without a zone."""
        import numpy as np

        if isinstance(answers, AnswerTable):
            return answers
        names: tuple[dict[str, int], ...] = ({}, {}, {}, {})
        suppliers, prompts, families, prefixes = names
        family_of: list[int] = []
        by, to, began, rounds, at = array("i"), array("i"), array("i"), array("i"), array("q")
        for answer in answers:
            if answer.at.tzinfo is None:
                moment(f"at of an answer by {answer.supplier}", answer.at)
            by.append(suppliers.setdefault(answer.supplier, len(suppliers)))
            prompt = prompts.setdefault(answer.prompt, len(prompts))
            if prompt == len(family_of):
                family_of.append(families.setdefault(answer.family, len(families)))
            to.append(prompt)
            began.append(prefixes.setdefault(answer.answer_prefix, len(prefixes)))
            at.append((answer.at - _EPOCH) // _MICROSECOND)
            rounds.append(answer.round)
        columns = {"by": by, "to": to, "began": began, "at": at, "rounds": rounds}
        arrays = {name: np.asarray(column) for name, column in columns.items()}
        return cls(list(suppliers), list(prompts), list(families), family_of, list(prefixes), arrays)

    def __len__(self) -> int:
        return len(self.by)

    def __iter__(self) -> Iterator[Answer]:
        for start in range(0, len(self), 10_000):
            yield from self._read(slice(start, start + 10_000))

    def _read(self, where: slice | np.ndarray) -> list[Answer]:
        return [
            Answer(
                self.suppliers[by],
                self.prompts[to],
                self.families[self.family_of[to]],
                instant(at),
                round_,
                self.prefixes[began],
            )
            for by, to, at, round_, began in zip(
                *(column[where].tolist() for column in (self.by, self.to, self.at, self.rounds, self.began)),
                strict=True,
            )
        ]

    def since(self, cut_at: Mapping[str, datetime]) -> AnswerTable:
        """The answers of suppliers after their cuts. Raises IdentityError for times without a zone."""
        import numpy as np

        if not cut_at:
            return self
        cuts = np.full(len(self.suppliers), np.iinfo(np.int64).min)
        for number, name in enumerate(self.suppliers):
            if name in cut_at:
                cuts[number] = microseconds(moment(f"cut_at of {name}", cut_at[name]))
        after = self.at > cuts[self.by]
        if after.all():
            return self
        columns = {name: column[after] for name, column in self._columns.items()}
        names = self.suppliers, self.prompts, self.families, self.family_of, self.prefixes
        return AnswerTable(*names, columns)

    def of_supplier(self, name: str) -> list[Answer]:
        """Its answers in the order they came; of one instant by prompt and round."""
        number = self._number.get(name)
        if number is None:
            return []
        order, bounds = self._by_supplier
        own = self._read(order[bounds[number] : bounds[number + 1]])
        return sorted(own, key=lambda answer: (answer.at, answer.prompt, answer.round))

    def count(self, name: str) -> int:
        """How many answers of a supplier there are."""
        number = self._number.get(name)
        return 0 if number is None else int(self._counts[number])

    def rows_of(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the answers of some suppliers, and the place among ``names`` of whose each is."""
        import numpy as np

        order, bounds = self._by_supplier
        numbers = [self._number.get(name) for name in names]
        parts = [order[:0] if n is None else order[bounds[n] : bounds[n + 1]] for n in numbers]
        owner = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return np.concatenate([order[:0], *parts]), owner

    def by_suppliers(self, most: int) -> Iterator[np.ndarray]:
        """Rows of whole suppliers, about so many at a time."""
        order, bounds = self._by_supplier
        start = 0
        for number in range(len(self.suppliers)):
            if bounds[number + 1] - bounds[start] >= most or number + 1 == len(self.suppliers):
                yield order[bounds[start] : bounds[number + 1]]
                start = number + 1

    @cached_property
    def _number(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.suppliers)}

    @cached_property
    def _counts(self) -> np.ndarray:
        import numpy as np

        return np.bincount(self.by, minlength=len(self.suppliers))

    @cached_property
    def _by_supplier(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        order = np.argsort(self.by, kind="stable")
        return order, np.searchsorted(self.by[order], np.arange(len(self.suppliers) + 1))
