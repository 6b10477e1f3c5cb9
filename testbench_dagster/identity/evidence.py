"""Answers as a matrix: suppliers x common prompts, how each began, how often suppliers repeat themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from testbench_dagster.identity.answers import AnswerTable
from testbench_dagster.identity.kernel import Answer, kernel, moment
from testbench_dagster.identity.settings import IdentitySettings

if TYPE_CHECKING:
    import numpy as np

#: No informative answer.
NONE = -1
#: Answers that are put into the matrix at a time.
_AT_ONCE = 500_000


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the answers of one service say, the newest informative answer of each supplier to each prompt.

    ``cells[s, t]`` numbers the answer prefix of supplier s at prompt t; two suppliers began alike if the
    numbers are equal, and no two prompts share a number. :data:`NONE` where there is none. ``local`` is
    the same counted from 0 within each prompt, ``answer_prefix`` an index into ``texts``, ``at`` the time
    of the answer (POSIX seconds). ``common[s, t]`` is how little of its own the prefix has: the share of
    the supplier's answers to the prompt's family that begin the same way on different prompts (templates,
    boilerplate). ``repeats`` and ``repeated`` count comparisons of a supplier's successive answers to one
    prompt, and how many of these agreed.
    """

    settings: IdentitySettings
    suppliers: tuple[str, ...]
    prompts: tuple[str, ...]
    cells: np.ndarray
    local: np.ndarray
    answer_prefix: np.ndarray
    texts: tuple[str, ...]
    at: np.ndarray
    common: np.ndarray
    repeats: np.ndarray
    repeated: np.ndarray
    cut_at: Mapping[str, datetime]
    index: Mapping[str, int]

    @classmethod
    def of(
        cls,
        answers: Iterable[Answer],
        settings: IdentitySettings | None = None,
        *,
        cut_at: Mapping[str, datetime] | None = None,
        suppliers: Iterable[str] = (),
    ) -> Evidence:
        """Evidence of the answers of one service, in any order.

        ``cut_at``: when a supplier's model changed; only its answers after that count. ``suppliers``: further
        ones, to be placed in groups though they may have answered nothing yet. Raises IdentityError for times
        without a zone.
        """
        import numpy as np

        settings = settings or IdentitySettings()
        cuts = {s: moment(f"cut_at of {s}", c) for s, c in (cut_at or {}).items()}
        table = AnswerTable.of(answers)
        after = table.since(cuts)
        told = np.array([len(text) for text in table.prefixes], dtype=np.int64) >= settings.prefix_chars
        used = told[after.began]

        # all numbers below follow names and texts in their order, so that equal answers give equal evidence
        seen = {table.suppliers[number] for number in np.unique(table.by).tolist()}
        ordered = sorted(seen.union(suppliers))
        index = {name: number for number, name in enumerate(ordered)}
        wanted, prompt_places = _ranked(table.prompts, after.to[used])
        began, prefix_places = _ranked(table.prefixes, after.began[used])
        texts = tuple(table.prefixes[number] for number in began)
        family = np.array([table.family_of[number] for number in wanted], dtype=np.int32)
        key_of = _numbered([kernel(text, settings.prefix_chars) or "" for text in texts])
        template_of = _numbered([text[: settings.template_chars] for text in texts])

        shape = (len(ordered), len(wanted))
        keys, answer_prefixes = (np.full(shape, NONE, dtype=np.int32) for _ in range(2))
        at, common = np.full(shape, np.nan), np.zeros(shape)
        repeats, repeated = (np.zeros(len(ordered), dtype=np.int64) for _ in range(2))
        place_of = np.array([index.get(name, NONE) for name in table.suppliers], dtype=np.int32)
        for rows in after.by_suppliers(_AT_ONCE):
            rows = rows[used[rows]]
            s, t = place_of[after.by[rows]], prompt_places[after.to[rows]]
            when, round_, prefix = after.at[rows], after.rounds[rows], prefix_places[after.began[rows]]

            # by supplier and prompt, then time: neighbours are repeats, the last of each run is the newest
            order = np.lexsort((prefix, round_, when, t, s))
            s, t, when, round_, prefix = (of[order] for of in (s, t, when, round_, prefix))
            key = key_of[prefix]
            same = (s[1:] == s[:-1]) & (t[1:] == t[:-1])
            again = same & (round_[1:] != round_[:-1])
            repeats += np.bincount(s[1:][again], minlength=len(ordered))
            repeated += np.bincount(s[1:][again & (key[1:] == key[:-1])], minlength=len(ordered))

            newest = np.append(~same, True)[: len(s)]
            s, t, key, prefix, when = (of[newest] for of in (s, t, key, prefix, when))
            keys[s, t], answer_prefixes[s, t], at[s, t] = key, prefix, when / 1e6
            common[s, t] = _commonness(s, family[t], key, template_of[prefix], settings.template_share)

        cells, local = _by_prompt(keys)
        return cls(
            settings=settings,
            suppliers=tuple(ordered),
            prompts=tuple(table.prompts[number] for number in wanted),
            cells=cells,
            local=local,
            answer_prefix=answer_prefixes,
            texts=texts,
            at=at,
            common=common,
            repeats=repeats,
            repeated=repeated,
            cut_at=cuts,
            index=index,
        )


def _by_prompt(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys (suppliers x prompts) numbered within each prompt from 0, and so that no two prompts share one.

    The array of keys is the first of both afterwards.
    """
    import numpy as np

    local = np.full(keys.shape, NONE, dtype=np.int32)
    offset = most = 0
    for t in range(keys.shape[1]):
        there = np.flatnonzero(keys[:, t] != NONE)
        found, number = np.unique(keys[there, t], return_inverse=True)
        local[there, t] = number.reshape(-1)
        keys[there, t] = number.reshape(-1) + offset
        offset += len(found)
        most = max(most, len(found))
    # as short as they fit: all pairs are compared by these
    return keys, local.astype(np.int16) if most <= np.iinfo(np.int16).max else local


def _ranked(names: Sequence[str], numbers: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Numbers, each once, in the order of the names they stand for; by number its place, -1 for others."""
    import numpy as np

    ordered = sorted(np.unique(numbers).tolist(), key=lambda number: names[number])
    places = np.full(len(names), NONE, dtype=np.int32)
    places[ordered] = np.arange(len(ordered), dtype=np.int32)
    return ordered, places


def _numbered(texts: Sequence[str]) -> np.ndarray:
    """A number per text, equal for equal ones."""
    import numpy as np

    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int32)


def _commonness(
    s: np.ndarray, family: np.ndarray, key: np.ndarray, template: np.ndarray, least: float
) -> np.ndarray:
    """Per answer: share of the supplier's answers to the family that begin as others of them do, if it does.

    Two kinds of alike: the compared characters equal on at least two prompts, or the first dozen characters
    equal on at least two prompts and a ``least`` share of all ("The answer is 42" has a dozen characters of
    template and tells models apart by their arithmetic only). All such answers count together: a supplier
    that uses five templates in turn says as little of itself as one that uses one.
    """
    import numpy as np

    share = np.zeros(len(s))
    _, place, answers = np.unique(
        s * np.int64(int(family.max(initial=0)) + 1) + family, return_inverse=True, return_counts=True
    )
    place = place.reshape(-1)
    for values, floor in ((key, 0.0), (template, least)):
        width = int(values.max(initial=0)) + 1
        _, kind, uses = np.unique(place * np.int64(width) + values, return_inverse=True, return_counts=True)
        used = uses[kind.reshape(-1)]
        alike = (used > 1) & (used >= floor * answers[place])
        mass = np.bincount(place, weights=alike, minlength=len(answers)) / np.maximum(answers, 1)
        share = np.maximum(share, np.where(alike, mass[place], 0.0))
    return share
