"""Answers as a matrix: suppliers x common prompts, how each began, how often suppliers repeat themselves."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from testbench_dagster.identity.kernel import Answer, kernel, moment
from testbench_dagster.identity.settings import IdentitySettings

if TYPE_CHECKING:
    import numpy as np

#: No informative answer.
NONE = -1


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
        names: dict[str, int] = {name: number for number, name in enumerate(dict.fromkeys(suppliers))}
        prompts: dict[str, int] = {}
        families: dict[str, int] = {}
        answer_prefixes: dict[str, int] = {}
        family_of: list[int] = []
        # a column each: of tens of millions of answers a list of rows would take gigabytes
        by, to, at, rounds, began = array("i"), array("i"), array("d"), array("q"), array("i")
        for answer in answers:
            came = moment(f"at of an answer by {answer.supplier}", answer.at)
            supplier = names.setdefault(answer.supplier, len(names))
            cut = cuts.get(answer.supplier)
            if (cut is not None and came <= cut) or len(answer.answer_prefix) < settings.prefix_chars:
                continue
            prompt = prompts.setdefault(answer.prompt, len(prompts))
            if prompt == len(family_of):
                family_of.append(families.setdefault(answer.family, len(families)))
            number = answer_prefixes.setdefault(answer.answer_prefix, len(answer_prefixes))
            by.append(supplier)
            to.append(prompt)
            at.append(came.timestamp())
            rounds.append(answer.round)
            began.append(number)

        # all numbers below follow names and texts in their order, so that equal answers give equal evidence
        ordered, wanted, texts = sorted(names), sorted(prompts), tuple(sorted(answer_prefixes))
        s = _ranks(names, ordered)[np.asarray(by)]
        t = _ranks(prompts, wanted)[np.asarray(to)]
        answer_prefix = _ranks(answer_prefixes, texts)[np.asarray(began)]
        when, round_ = np.asarray(at), np.asarray(rounds)
        family = np.zeros(len(wanted), dtype=int)
        family[_ranks(prompts, wanted)] = family_of
        key_of = _numbered([kernel(text, settings.prefix_chars) or "" for text in texts])
        template_of = _numbered([text[: settings.template_chars] for text in texts])

        # by supplier and prompt, then time: neighbours are repeats, the last of each run is the newest
        order = np.lexsort((answer_prefix, round_, when, t, s))
        s, t, when, round_, answer_prefix = (of[order] for of in (s, t, when, round_, answer_prefix))
        del order, by, to, at, rounds, began
        key = key_of[answer_prefix]
        same = (s[1:] == s[:-1]) & (t[1:] == t[:-1])
        again = same & (round_[1:] != round_[:-1])
        repeats = np.bincount(s[1:][again], minlength=len(ordered))
        repeated = np.bincount(s[1:][again & (key[1:] == key[:-1])], minlength=len(ordered))

        newest = np.append(~same, True)[: len(s)]
        s, t, key, answer_prefix, when = (of[newest] for of in (s, t, key, answer_prefix, when))
        width = max(int(key_of.max(initial=0)) + 1, 1)
        first_of_prompt, cell = np.unique(t * np.int64(width) + key, return_inverse=True)
        offsets = np.searchsorted(first_of_prompt, np.arange(len(wanted)) * width)
        common = _commonness(s, family[t], key, template_of[answer_prefix], settings.template_share)

        shape = (len(ordered), len(wanted))

        def matrix(values: np.ndarray, empty: float, kind: type) -> np.ndarray:
            filled: np.ndarray = np.full(shape, empty, dtype=kind)
            filled[s, t] = values
            return filled

        cell = cell.reshape(-1).astype(np.int32)
        local = (cell - offsets[t]).astype(np.int32)
        # as short as they fit: what all pairs are compared by
        short = np.int16 if int(local.max(initial=0)) <= np.iinfo(np.int16).max else np.int32
        return cls(
            settings=settings,
            suppliers=tuple(ordered),
            prompts=tuple(wanted),
            cells=matrix(cell, NONE, np.int32),
            local=matrix(local, NONE, short),
            answer_prefix=matrix(answer_prefix, NONE, np.int32),
            texts=texts,
            at=matrix(when, np.nan, np.float64),
            common=matrix(common, 0.0, np.float64),
            repeats=repeats,
            repeated=repeated,
            cut_at=cuts,
            index={name: number for number, name in enumerate(ordered)},
        )


def _ranks(numbers: Mapping[str, int], ordered: Sequence[str]) -> np.ndarray:
    """Place in ``ordered`` of what was numbered in order of appearance."""
    import numpy as np

    ranks = np.empty(len(ordered), dtype=np.int32)
    for rank, name in enumerate(ordered):
        ranks[numbers[name]] = rank
    return ranks


def _numbered(texts: list[str]) -> np.ndarray:
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
