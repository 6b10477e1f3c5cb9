"""Whose scores rest on the same tasks: who is compared with whom where not all are asked the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping

_TOLD = 3  # tasks named


def ranked_among(not_asked: Mapping[str, frozenset[str]], tasks: Collection[str]) -> dict[str, str | None]:
    """By supplier the words for the tasks it is asked; the same for those that can be ranked together.

    Scores over other tasks are other scores: whoever is asked easy ones only would else stand above who is
    asked all. Where all suppliers are asked the same there is nothing to tell, and it is None.

    Args:
        not_asked: by supplier the tasks of the ranking that it is not asked.
        tasks: all tasks of the ranking.
    """
    kinds = {names: _told(names, frozenset(tasks) - names) for names in set(not_asked.values())}
    if len(kinds) < 2:
        return dict.fromkeys(not_asked)
    texts = list(kinds.values())
    if len(set(texts)) < len(texts):  # the names that would tell them apart are among those not told
        kinds = {names: _told(names, frozenset(tasks) - names, told=None) for names in kinds}
    return {supplier: kinds[names] for supplier, names in not_asked.items()}


def _told(left_out: frozenset[str], asked: frozenset[str], told: int | None = _TOLD) -> str:
    """What is asked in few words: the shorter of what is and what is not."""
    if not left_out:
        return "all tasks"
    word, names = ("only", asked) if len(asked) <= len(left_out) else ("not", left_out)
    shown = sorted(names)[:told]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"{word} {', '.join(shown)}{more}"
