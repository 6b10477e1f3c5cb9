"""Rows that stand in for a data set that is not here: columns of plausible kinds, found by trying.

A task's templates and functions say which columns it reads, and an error says of which kind one is not. Six
rows are made of a layout, a mapping of columns to kinds; :func:`others` are the layouts to try next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ROWS = 6
_OPTIONS = 4
_LETTERS = "ABCDEFGHIJ"
_THINGS = ("an apple", "the river", "some stone", "a cloud", "one table", "the horse")
_PLACES = ("first", "second", "third", "fourth")


class Kind(NamedTuple):
    """What a column holds; ``value`` is a constant, or the column it repeats, ``parts`` are of objects."""

    name: str
    value: str = ""
    parts: tuple[tuple[str, Kind], ...] = ()


Layout = Mapping[str, Kind]

_GOLD = re.compile(r"answer|gold|label|correct|target|key|solution|idx|index|rationale", re.IGNORECASE)
_PLURAL = re.compile(
    r"choices|options|endings|answers|targets|candidates|alternatives|sentences|list|references|labels",
    re.IGNORECASE,
)
#: Columns that hold one option each, whatever else their names may say.
_ONE_OPTION = re.compile(
    r"(choice|option|opcion|opcao|op|answer|ending|distractor|alternative|sol|incorrect)"
    r"[ _]?\w*?[ _]?[0-9A-Ea-e]$"
    r"|^[A-Ja-j]$|incorrect|wrong",
    re.IGNORECASE,
)
#: The right one of another column's options, by itself or as the only one of a list.
_SAME = ("same", "same_list")
_TEXTS = Kind("texts")
_OBJECTS = (Kind("object"), Kind("objects"))
_OF_LISTS = (
    _TEXTS,
    Kind("object", parts=(("text", _TEXTS), ("label", Kind("letters")))),
    *_OBJECTS,
    *map(Kind, ("text_list_text", "letters", "two_texts", "text", "index", "letter", "lettered_texts")),
    *map(Kind, ("indexes", "lists", "marks")),
)
_OF_GOLD = tuple(map(Kind, ("letter", "index", "index_text", "number", "number_text")))
_OF_GOLD_LATER = (
    *map(Kind, ("text", "small_letter", "worked", "year", "year_text", "flag", "flag_text", "yes")),
    _TEXTS,
    *_OBJECTS,
    *map(Kind, ("indexes", "share", "boxed", "text_list_text", "marks")),
)
_OF_TEXT = (
    *map(Kind, ("text", "index")),
    _TEXTS,
    *_OBJECTS,
    *map(Kind, ("word", "letter", "year", "text_list_text", "flag", "lines", "worked", "share", "yes")),
    *map(Kind, ("index_text", "number", "nothing", "lists", "indexes", "gap", "empty")),
)


def gold_of(row: int) -> int:
    """The place of the right option: within the options even where there are two."""
    return row % 2


def kinds(column: str, columns: Sequence[str] = ()) -> list[Kind]:
    """The kinds a column may be of by its name, the likeliest first."""
    if _ONE_OPTION.search(column):
        return [Kind("text"), *(k for k in _OF_TEXT if k.name != "text")]
    others_of = [other for other in columns if other != column]
    if _PLURAL.search(column):
        return [*_OF_LISTS, *(Kind("same_list", other) for other in others_of)]
    if _GOLD.search(column):
        same = [Kind("same", other) for other in others_of]
        return [*_OF_GOLD, *same, *_OF_GOLD_LATER]
    return list(_OF_TEXT)


def rows(layout: Layout) -> list[dict[str, Any]]:
    """Some rows of a layout; one without columns has a counter, as a table needs one."""
    if not layout:
        return [{"stand_in": row} for row in range(ROWS)]
    return [_row(layout, row) for row in range(ROWS)]


def _row(layout: Layout, row: int) -> dict[str, Any]:
    made = {c: None if k.name in _SAME else _value(k, c, row) for c, k in layout.items()}
    for column, kind in layout.items():
        if kind.name in _SAME:
            right = _right_one(made.get(kind.value), gold_of(row))
            made[column] = right if kind.name == "same" else [right]
    return made


def _right_one(options: Any, gold: int) -> Any:
    if isinstance(options, dict):
        options = options.get("text")
    return options[gold] if isinstance(options, list) and len(options) > gold else options


def _text(column: str, row: int, option: int | None = None) -> str:
    place = "" if option is None else f"{_PLACES[option % _OPTIONS]} "
    return f"The {place}{column.replace('_', ' ')} of case {row} is {_THINGS[row]}."


def made_up(text: str) -> bool:
    """Whether a text is a value of some row, looked up in vain, not the name of a column."""
    return " of case " in text or any(thing.split()[1] in text for thing in _THINGS)


def _value(kind: Kind, column: str, row: int) -> Any:
    gold, texts = gold_of(row), [_text(column, row, option) for option in range(_OPTIONS)]
    match kind.name:
        case "constant":
            return kind.value
        case "object":
            return {name: _value(part, name, row) for name, part in kind.parts}
        case "objects":
            return [
                {name: _value(part, f"{name} {_PLACES[option]}", row) for name, part in kind.parts}
                for option in range(_OPTIONS)
            ]
        case "texts":
            return texts
        case "lists":
            return [[f"{text} ({number})" for text in texts] for number in range(_OPTIONS)]
    return {
        "text": _text(column, row),
        "word": f"{re.sub('[^A-Za-z]', '', column)}{_THINGS[row].split()[1]}",
        "two_texts": texts[:2],
        "lettered_texts": [f"{_LETTERS[n]}) {text}" for n, text in enumerate(texts)],
        "text_list_text": json.dumps(texts),
        "letters": list(_LETTERS[:_OPTIONS]),
        "letter": _LETTERS[gold],
        "small_letter": _LETTERS[gold].lower(),
        "index": gold,
        "index_text": str(gold),
        "indexes": [gold],
        "marks": [int(option == gold) for option in range(_OPTIONS)],
        "number": gold + 1,
        "number_text": str(gold + 1),
        "year": 1990 + row,
        "year_text": str(1990 + row),
        "share": 0.25 + gold / 2,
        "flag": bool(gold),
        "flag_text": str(bool(gold)),
        "yes": "yes" if gold else "no",
        "worked": f"{_text(column, row)}\n#### {1990 + row}",
        "boxed": f"So it is \\boxed{{{1990 + row}}}.",
        "lines": f"{_text(column, row)}\nAnd something more.",
        "gap": f"In case {row} somebody put the _ on {_THINGS[row]}.",
        "empty": "",
        "nothing": None,
    }[kind.name]


def with_column(layout: Layout, name: str) -> Iterator[Layout]:
    """Layouts that have a column, or a part of an object, of this name as well."""
    if name not in layout:
        yield {**layout, name: kinds(name, list(layout))[0]}
    part = (name, kinds(name)[0])
    for column, kind in layout.items():
        if kind.name in ("object", "objects") and name not in dict(kind.parts):
            yield {**layout, column: kind._replace(parts=(*kind.parts, part))}
    for column, kind in layout.items():
        if kind.name not in ("object", "objects"):
            for made in ("object", "objects"):
                yield {**layout, column: Kind(made, parts=(part,))}


def others(layout: Layout, hint: str, constants: Sequence[str]) -> Iterator[Layout]:
    """Layouts that differ in one column, those first that a hint names: a line of code, a message."""
    named = {c: re.search(rf"\b{re.escape(c)}\b", hint) is not None for c in layout}
    fixed = [Kind("constant", value) for value in constants]
    for column in sorted(layout, key=lambda c: not named[c]):
        own = layout[column]
        for kind in [*kinds(column, list(layout)), *fixed]:
            if kind != own:
                yield {**layout, column: kind}
        for name, part in own.parts:
            for kind in kinds(name):
                if kind != part:
                    parts = tuple((n, kind if n == name else p) for n, p in own.parts)
                    yield {**layout, column: own._replace(parts=parts)}
