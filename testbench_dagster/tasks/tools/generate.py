"""Writes the starter tasks' data: ``python -m testbench_dagster.tasks.tools.generate [FOLDER]``.

The output is a function of :data:`SEED` and the question makers alone: the same bytes on every run, so that a
change of a maker shows as a change of the committed files.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from testbench_dagster.tasks.tools.questions import Ask, Tool
from testbench_dagster.tasks.tools.questions.calls import TOOLS
from testbench_dagster.tasks.tools.questions.none import chat
from testbench_dagster.tasks.tools.questions.structured import FORMS
from testbench_dagster.tasks.tools.starter import DATA, TASKS

SEED = 20261130
DOCS = 240

Row = dict[str, Any]
# A task whose maker finds nothing new so often in a row has run out of questions: a mistake in the maker.
_MAX_TRIES = 500

_FRAMES = (
    "{0}.", "Please {1}.", "Could you {1}?", "I need you to {1}.", "Can you {1} for me?",
    "Hi! Please {1}. Thanks!", "Would you {1}, please?", "{0}, please.", "I'd like you to {1}.",
    "Hello, could you please {1}?",
)  # fmt: skip
_OF_TWO = (
    "{0}. Also, {1}.",
    "Please {2}, and then {1}.",
    "Two things: {2}; and {1}.",
    "Could you {2}? And please {1}.",
)
#: Domains whose tools might be taken to fit requests of another.
_RELATED = (
    {"travel", "maps", "weather"},
    {"food", "maps", "shop"},
    {"shop", "merchant", "library"},
    {"calendar", "personnel", "mail", "home"},
    {"music", "home"},
    {"finance", "maths", "shop"},
    {"garden", "home", "weather"},
    {"car", "home", "maps"},
    {"health", "calendar"},
    {"development", "calendar"},
)


def _related(one: Tool, other: Tool) -> bool:
    domains = {one.domain, other.domain}
    return len(domains) == 1 or any(domains <= together for together in _RELATED)


def _capital(clause: str) -> str:
    return clause[0].upper() + clause[1:]


def _ask(rng: Random, clause: str) -> str:
    return rng.choice(_FRAMES).format(_capital(clause), clause)


def _ask_several(rng: Random, clauses: Sequence[str]) -> str:
    if len(clauses) == 2 and rng.random() < 0.7:
        return rng.choice(_OF_TWO).format(_capital(clauses[0]), clauses[1], clauses[0])
    intro = rng.choice(("Please do the following.", "A few things to do:", "I need several things done."))
    listed = rng.random() < 0.5
    lines = [f"{number}. {_capital(clause)}." for number, clause in enumerate(clauses, 1)]
    return (
        f"{intro}\n" + "\n".join(lines)
        if listed
        else f"{intro} " + " ".join(f"{_capital(c)}." for c in clauses)
    )


def _row(kind: str, question: str, offered: Sequence[Tool], calls: Sequence[tuple[Tool, Ask]]) -> Row:
    gold = []
    for tool, asked in calls:
        call: Row = {"name": tool.name, "arguments": dict(asked.arguments)}
        gold.append({**call, "also": dict(asked.also)} if asked.also else call)
    return {
        "kind": kind,
        "messages": [{"role": "user", "content": question}],
        "tools": [tool.offer for tool in offered],
        "gold": {"calls": gold},
    }


def _shuffled(rng: Random, tools: Sequence[Tool]) -> list[Tool]:
    return rng.sample(list(tools), len(tools))


def _one(rng: Random, number: int) -> Row:
    tool = TOOLS[number % len(TOOLS)]
    asked = tool.ask(rng)
    return _row(tool.domain, _ask(rng, asked.clause), [tool], [(tool, asked)])


def _several(rng: Random, number: int) -> Row:
    tool = TOOLS[number % len(TOOLS)]
    asked = tool.ask(rng)
    others = [other for other in TOOLS if other is not tool]
    siblings = [other for other in others if other.domain == tool.domain]
    strangers = [other for other in others if other not in siblings]
    offered = [tool, *siblings, *rng.sample(strangers, rng.randint(3, 6) - min(len(siblings), 2))]
    return _row(tool.domain, _ask(rng, asked.clause), _shuffled(rng, offered), [(tool, asked)])


def _parallel(rng: Random, number: int) -> Row:
    tool = TOOLS[number % len(TOOLS)]
    if number // len(TOOLS) % 2:
        wanted, kind = [tool] * rng.randint(2, 3), "same_tool"
    else:
        others = [other for other in TOOLS if other is not tool]
        wanted, kind = [tool, *rng.sample(others, rng.randint(1, 3))], "different_tools"
    calls = [(one, one.ask(rng)) for one in wanted]
    texts = {json.dumps([one.name, asked.arguments], sort_keys=True) for one, asked in calls}
    if len(texts) < len(calls):
        return _parallel(rng, number)
    needed = list(dict.fromkeys(wanted))
    spare = [other for other in TOOLS if other not in needed]
    offered = [*needed, *rng.sample(spare, rng.randint(0, 3))]
    question = _ask_several(rng, [asked.clause for _, asked in calls])
    return _row(kind, question, _shuffled(rng, offered), calls)


def _none(rng: Random, number: int) -> Row:
    if number % 2:
        return _row("conversation", chat(rng), rng.sample(TOOLS, rng.randint(1, 4)), [])
    tool = TOOLS[number // 2 % len(TOOLS)]
    foreign = [other for other in TOOLS if not _related(tool, other)]
    question = _ask(rng, tool.ask(rng).clause)
    return _row("tool_missing", question, rng.sample(foreign, rng.randint(1, 4)), [])


def _schema(rng: Random, number: int) -> Row:
    form = FORMS[number % len(FORMS)]
    story, value = form.make(rng)
    order = rng.choice(
        (
            "Read {0} from this text and answer with JSON.\n\n{1}",
            "{1}\n\nGive {0} as JSON in the form you were given.",
            "Extract {0} as JSON: {1}",
            "Here is a note. Turn {0} into JSON, exactly as the schema says.\n\n{1}",
        )
    )
    return {
        "kind": form.name,
        "messages": [{"role": "user", "content": order.format(form.what, story)}],
        "schema": form.schema,
        "schema_name": form.name,
        "gold": {"json": dict(value)},
    }


_MAKERS: tuple[Callable[[Random, int], Row], ...] = (_one, _several, _parallel, _none, _schema)


def _new_rows(task: str, make: Callable[[Random, int], Row], taken: set[str]) -> Iterator[Row]:
    rng = Random(f"{SEED}/{task}")  # noqa: S311  questions, the same ones every time
    for number in range(DOCS):
        for _ in range(_MAX_TRIES):
            row = make(rng, number)
            question = row["messages"][0]["content"]
            if question not in taken:
                break
        else:
            raise RuntimeError(f"{task}: no new question number {number}")
        taken.add(question)
        yield {"id": f"{task}-{number:04d}", **row}


def generate(folder: Path = DATA) -> list[Path]:
    """Writes ``<task>.jsonl.gz`` for every task into ``folder`` and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    written = []
    for task, make in zip(TASKS, _MAKERS, strict=True):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _new_rows(task, make, taken))
        packed = io.BytesIO()
        # without time stamp and name, so that the bytes are the same every time
        with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as out:
            out.write(lines.encode())
        path = folder / f"{task}.jsonl.gz"
        path.write_bytes(packed.getvalue())
        written.append(path)
    return written


if __name__ == "__main__":
    for made in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA):
        print(f"{made}: {made.stat().st_size} bytes")
