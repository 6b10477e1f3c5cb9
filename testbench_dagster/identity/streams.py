"""What answers are compared with to see a change: a supplier's own earlier ones, and its group's. In arrays.

Observations are 1 where an answer began as was expected and 0 where it did not. They are the same, in the
same order, as those of a loop over the answers (the tests keep one), minutes at 50,000 suppliers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbench_dagster.identity.answers import AnswerTable
from testbench_dagster.identity.kernel import kernel

if TYPE_CHECKING:
    import numpy as np

#: What is compared of an answer too short to be told from others: all such count as one text.
SHORT = 0
#: Answers that are compared at a time, but for those to one prompt by one group, which come together.
_AT_ONCE = 300_000


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers of some suppliers in columns of shape (n,), by ``owner``; of each owner in any order.

    ``owner`` is the place of the supplier in a list of the caller's, ``prompt`` and ``text`` are numbers that
    are equal for equal ones (of prompts in the order of their names, of texts :data:`SHORT` for short ones),
    ``at`` is in microseconds since 1970, ``round`` which repetition an answer belongs to.
    """

    owner: np.ndarray
    prompt: np.ndarray
    text: np.ndarray
    at: np.ndarray
    round: np.ndarray

    def where(self, chosen: np.ndarray) -> Answers:
        """Some of the answers: by their places, or by whether they are wanted."""
        columns = self.owner, self.prompt, self.text, self.at, self.round
        return Answers(*(column[chosen] for column in columns))


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Observations of owners in columns of shape (n,), by ``owner``, of each in the order of its stream.

    ``at`` is when the answer came, ``known_at`` when what it is compared with was there too (microseconds
    since 1970); ``agreed`` whether it began as was expected.
    """

    owner: np.ndarray
    at: np.ndarray
    known_at: np.ndarray
    agreed: np.ndarray

    def of(self, owner: int) -> Observations:
        """Those of one owner."""
        import numpy as np

        return self.where(slice(*np.searchsorted(self.owner, [owner, owner + 1])))

    def where(self, chosen: slice | np.ndarray) -> Observations:
        """Some of the observations, in order."""
        columns = self.owner, self.at, self.known_at, self.agreed
        return Observations(*(column[chosen] for column in columns))


class Compared:
    """The answers of a table by what is compared of them: their first ``chars`` characters."""

    def __init__(self, table: AnswerTable, chars: int) -> None:
        import numpy as np

        self._table = table
        numbers: dict[str, int] = {}
        kernels = (kernel(text, chars) for text in table.prefixes)
        self._texts = np.array(
            [SHORT if one is None else numbers.setdefault(one, len(numbers) + 1) for one in kernels],
            dtype=np.int32,
        )
        self._prompts = np.empty(len(table.prompts), dtype=np.int32)
        self._prompts[sorted(range(len(table.prompts)), key=table.prompts.__getitem__)] = np.arange(
            len(table.prompts), dtype=np.int32
        )

    def answers(self, suppliers: Sequence[str]) -> Answers:
        """The answers of some suppliers; an owner is a place in this list."""
        rows, owner = self._table.rows_of(suppliers)
        table = self._table
        return Answers(
            owner=owner,
            prompt=self._prompts[table.to[rows]],
            text=self._texts[table.began[rows]],
            at=table.at[rows],
            round=table.rounds[rows],
        )


def repeats(given: Answers) -> Observations:
    """Answers to prompts that were answered before, in another round: like the most frequent, or not.

    The most frequent text is the earliest among equals: a change does not outvote what was before it.
    """
    import numpy as np

    given = given.where(_asked_again(given))
    # by owner and prompt, in the order in which they came
    given = given.where(np.lexsort((given.round, given.at, given.prompt, given.owner)))
    numbers = np.arange(len(given.owner))
    begins = _begins(given.owner, given.prompt)
    place = numbers - _last(begins)
    asked = np.cumsum(begins) - 1
    first, count = _occurrences(asked, given.text)
    # of the texts said by then the greatest rank is that of the most frequent, of equals the earliest
    width = int(place.max(initial=0)) + 1
    rank = (asked * (width + 1) + count) * width + (width - 1 - place[first])
    leads = np.maximum.accumulate(rank) == rank
    usual = np.append(SHORT, given.text[_last(leads)])[:-1] if len(numbers) else given.text
    seen = ~begins & (_occurrences(asked, given.round)[0] == numbers)
    seen &= (given.text != SHORT) | (usual != SHORT)
    agreed, given = (given.text == usual)[seen], given.where(seen)
    order = np.lexsort((given.round, given.prompt, given.at, given.owner))
    given = given.where(order)
    return Observations(given.owner, given.at, given.at, agreed[order])


def deviations(given: Answers, groups: np.ndarray, near: int) -> Observations:
    """Answers against what most other members of a group said nearest in time to the same prompt.

    What is more than ``near`` microseconds away says nothing; of two answers of another as near it is the
    earlier. More than half of those who said anything must have said the same. ``groups``: of each owner.
    """
    import numpy as np

    asked = groups[given.owner] * np.int64(int(given.prompt.max(initial=0)) + 1) + given.prompt
    order = np.argsort(asked, kind="stable")
    asked = asked[order]
    found = [_deviations(given.where(order[part]), asked[part], near) for part in _parts(asked)]
    if not found:
        return Observations(given.owner, given.at, given.at, np.zeros(0, dtype=bool))
    owner, at, known_at, agreed = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((agreed, known_at, at, owner))
    return Observations(owner[order], at[order], known_at[order], agreed[order])


def _deviations(given: Answers, asked: np.ndarray, near: int) -> tuple[np.ndarray, ...]:
    """Owner, time, when it was known and whether it agreed, of answers that there is a majority for.

    ``asked`` is equal for answers to one prompt by members of one group, which come together.
    """
    import numpy as np

    order = np.lexsort((given.round, given.at, given.owner, asked))
    given, asked = given.where(order), asked[order]
    usual, known_at = _majorities(given, np.cumsum(_begins(asked)) - 1, near)
    seen = (usual >= 0) & ((given.text != SHORT) | (usual != SHORT))
    agreed = given.text == usual
    return given.owner[seen], given.at[seen], np.maximum(given.at, known_at)[seen], agreed[seen]


def _majorities(given: Answers, asked: np.ndarray, near: int) -> tuple[np.ndarray, np.ndarray]:
    """The text that most others say at each answer, -1 where none has a majority; and when the last said it.

    Answers come by prompt (``asked``, from 0), owner, time and round. Each is its owner's vote for a span of
    time around it: what is said at an instant are the votes that began, less those that ended. A majority is
    found bit by bit of the texts' numbers, each bit being that of more than half of the votes, and counted.
    """
    import numpy as np

    voting, begin, end, own = _spans(given, asked, near)
    # times by their order, so that a prompt, or a text, and a time fit into one number
    times = np.unique(np.concatenate([given.at, begin, end]))
    at, begin, end = (np.searchsorted(times, some) for some in (given.at, begin, end))
    width = np.int64(int(given.text.max(initial=0)) + 1)
    texts, text = np.unique(asked * width + given.text, return_inverse=True)
    bounds = np.searchsorted(texts // width, np.arange(int(asked.max(initial=-1)) + 2))
    first, within = bounds[asked], text - bounds[asked]

    of_prompt = _Spans(asked[voting], begin, end, len(times))
    where = of_prompt.at(asked, at)
    voters = of_prompt.count(where) - 1  # the owner's own is none
    usual = np.zeros(len(at), dtype=np.int64)
    for bit in range(int(within.max(initial=0)).bit_length()):
        set_ = (within >> bit) & 1
        usual |= (2 * (of_prompt.count(where, set_[voting]) - set_[own]) > voters).astype(np.int64) << bit
    found = usual < bounds[asked + 1] - first
    usual = first + np.where(found, usual, 0)

    of_text = _Spans(text[voting], begin, end, len(times))
    where = of_text.at(usual, at)
    found &= 2 * (of_text.count(where) - (text[own] == usual)) > voters
    # votes that came later than the answer and count at its instant are all that began by then
    latest = np.maximum.accumulate((text * np.int64(len(times)) + at)[voting][of_text.by_begin])
    known_at = times[(latest[where[0] - 1] - usual * len(times)).clip(0, len(times) - 1)]
    return np.where(found, texts[usual] % width, -1), known_at


def _spans(
    given: Answers, asked: np.ndarray, near: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which answers are nearest to their owner's instants, from when and until when; and each one's own vote.

    Of several answers at one instant the first counts up to it, the last from then on.
    """
    import numpy as np

    at, end = given.at, len(given.at)
    follows = ~_begins(asked, given.owner)
    first = ~follows | _begins(at)
    last = np.append(first, True)[1:]
    before = np.append(at[:1], at)[:end]
    after = np.append(at, at[-1:])[1:]
    followed = np.append(follows, False)[1:]
    # as near to the one before as to the one after is the one before's
    begin = np.where(follows, np.maximum(at - near, (before + at) // 2 + 1), at - near)
    until = np.where(followed, np.minimum(at + near, (at + after) // 2), at + near)
    begin, until = np.where(first, begin, at + 1), np.where(last, until, at)
    voting = np.flatnonzero(first | last)
    return voting, begin[voting], until[voting], _last(first)


class _Spans:
    """Spans of time of several kinds, counted at instants: those that began, less those that ended."""

    def __init__(self, kind: np.ndarray, begin: np.ndarray, end: np.ndarray, width: int) -> None:
        """Kinds are numbers; times are numbers below ``width``, ends belonging to their spans."""
        import numpy as np

        self._width = np.int64(width)
        begins, ends = kind * self._width + begin, kind * self._width + end
        self.by_begin, self._by_end = np.argsort(begins, kind="stable"), np.argsort(ends, kind="stable")
        self._begins, self._ends = begins[self.by_begin], ends[self._by_end]

    def at(self, kind: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many spans began until, and how many ended before instants; all of lesser kinds did both."""
        import numpy as np

        wanted = kind * self._width + at
        return np.searchsorted(self._begins, wanted, side="right"), np.searchsorted(self._ends, wanted)

    def count(self, where: tuple[np.ndarray, np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
        """How many spans hold each instant, or the sum of their weights."""
        import numpy as np

        counts: list[np.ndarray] = list(where)
        if weights is not None:
            for place, order in enumerate((self.by_begin, self._by_end)):
                counts[place] = np.append(0, np.cumsum(weights[order]))[where[place]]
        began, ended = counts
        held: np.ndarray = began - ended
        return held


def _parts(asked: np.ndarray) -> Iterator[slice]:
    """Parts of about so many answers as are compared at a time, each with all to its prompts."""
    import numpy as np

    start = 0
    while start < len(asked):
        end = start + _AT_ONCE
        if end < len(asked):
            end = int(np.searchsorted(asked, asked[end]))
            end = int(np.searchsorted(asked, asked[start], side="right")) if end <= start else end
        yield slice(start, end)
        start = end


def _asked_again(given: Answers) -> np.ndarray:
    """Places of the answers to prompts that their owner answered more than once."""
    import numpy as np

    asked = given.owner * np.int64(int(given.prompt.max(initial=0)) + 1) + given.prompt
    order = np.argsort(asked, kind="stable")
    begins = _begins(asked[order])
    alone = begins & np.append(begins, True)[1:]
    again: np.ndarray = order[~alone]
    return again


def _begins(*columns: np.ndarray) -> np.ndarray:
    """Where one of the columns is another than in the row before; the first row is one."""
    import numpy as np

    begins = np.zeros(len(columns[0]), dtype=bool)
    begins[:1] = True
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return begins


def _last(flags: np.ndarray) -> np.ndarray:
    """Of each row the last one up to it that is flagged, the first row where none is."""
    import numpy as np

    return np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))


def _occurrences(kind: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the first of its kind with its value, and the how many-th such it is, counted from 1."""
    import numpy as np

    order = np.lexsort((value, kind))
    begins = _last(_begins(kind[order], value[order]))
    first, count = np.empty(len(order), dtype=np.int64), np.empty(len(order), dtype=np.int64)
    first[order], count[order] = order[begins], np.arange(len(order)) - begins + 1
    return first, count
