"""Verdicts on tasks as rows for tables and files, and as sentences for people."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import framework_names, framework_plug
from testbench_dagster.core.task_flags import request_forms
from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.chat_choice.definition import task_refusal
from testbench_dagster.tasks.index import Entry, Leaf, TaskIndex, lm_eval_tasks, raw_definition
from testbench_dagster.tasks.verdicts import (
    AS_IS,
    CHAT,
    CHAT_CHOICE,
    COMPLETIONS,
    ECHO,
    MENDABLE,
    NEEDS,
    NOTES,
    REASONS,
    SUPPLIER_KINDS,
    Reason,
    Verdict,
    packaged,
)

#: How the name of a task ends that is asked as a choice on chat.
_OF_CHOICE = "~chat"
_WHERE = {
    CHAT: "suppliers with `api: chat`",
    COMPLETIONS: "suppliers with `api: completions`",
    ECHO: "suppliers with `api: completions` that echo log-probabilities",
}
#: In which form each kind of supplier is asked.
_FORM_OF = {CHAT: "chat", COMPLETIONS: "completions", ECHO: "completions"}
_HOW = {
    AS_IS: "as lm-eval asks it",
    CHAT_CHOICE: "as a choice of letters (`mode: chat_choice`), under the name {name}~chat and scored by "
    "`letter_acc`",
}
#: What becomes of a choice on suppliers that neither chat nor echo.
_NO_LETTERS = (
    f"On {_WHERE[COMPLETIONS]} that do not echo log-probabilities {{subject}} not asked: letters are for "
    "chats alone."
)


@dataclass(frozen=True)
class Explanation:
    """Why a task can be measured, or not: sentences, and a piece of ``testbench.yaml`` where it can."""

    sentences: tuple[str, ...]
    config: str | None = None


def is_leaf(entry: Entry) -> bool:
    """Whether an entry of the index is a task, not a name of several."""
    return entry.kind in ("task", "python")


def verdict_on(entry: Entry) -> Verdict:
    """The packaged verdict on a task of lm-eval or of the starter catalog; of others what their YAML says."""
    known = packaged().get(entry.name)
    if known is not None and _is_own(entry):
        return known
    if entry.kind == "python":
        return Verdict(None, Reason("python_class"), tried=False)
    try:
        raw = raw_definition(Path(entry.path or ""))
    except (OSError, ValueError, RecursionError) as error:
        return Verdict(None, Reason("broken", " ".join(str(error).split())[:200]), tried=False)
    return _by_definition(raw)


def _is_own(entry: Entry) -> bool:
    path = Path(entry.path or "")
    return path.is_relative_to(lm_eval_tasks()) or path.is_relative_to(Path(__file__).parent / "starter")


def _by_definition(raw: Mapping[str, Any]) -> Verdict:
    kind = str(raw.get("output_type") or "generate_until")
    against: Reason | None = None
    if raw.get("unsafe_code"):
        against = Reason("runs_code")
    elif raw.get("doc_to_image") or raw.get("doc_to_audio"):
        against = Reason("media")
    chat = against
    if kind == "multiple_choice" and against is None and (refused := task_refusal(raw)) is not None:
        chat = Reason("no_accuracy" if "accuracy" in refused else "no_choice", refused)
    notes = ("first_token",) if kind == "loglikelihood_rolling" else ()
    return Verdict(kind, against, chat if kind == "multiple_choice" else None, notes=notes, tried=False)


def chosen(index: TaskIndex, patterns: Sequence[str]) -> list[Entry]:
    """The tasks that some patterns match, those of matched groups and tags among them; all without patterns.

    Raises:
        TaskError: a pattern matches nothing.
    """
    if not patterns:
        return sorted((e for e in index.entries.values() if is_leaf(e)), key=lambda entry: entry.name)
    found: dict[str, Entry] = {}
    for pattern in patterns:
        plain = pattern.removesuffix(_OF_CHOICE)
        names = [name for name in index.entries if fnmatchcase(name, plain)]
        if not names:
            raise TaskError(index.unknown(plain))
        for name in names:
            leaves = [Leaf(name, index.entries[name])] if is_leaf(index.entries[name]) else index.leaves(name)
            found |= {leaf.name: leaf.entry for leaf in leaves if leaf.entry is not None}
    return sorted(found.values(), key=lambda entry: entry.name)


def matches(index: TaskIndex, pattern: str) -> bool:
    """Whether a pattern matches a name of the index."""
    plain = pattern.removesuffix(_OF_CHOICE)
    return any(fnmatchcase(name, plain) for name in index.entries)


def row_of(entry: Entry, verdict: Verdict) -> dict[str, Any]:
    """What is known of a task, as a row; its fields are those of ``docs/reference.md``."""
    obstacle = verdict.obstacle
    return {
        "task": entry.name,
        "family": family_of(entry),
        "output_type": verdict.output_type,
        **verdict.modes,
        "reason": None if obstacle is None else obstacle.code,
        "why": None if obstacle is None else says(obstacle),
        "completions_reason": None if (silent := verdict.reason_on(COMPLETIONS)) is None else silent.code,
        "echo_reason": None if verdict.as_is is None else verdict.as_is.code,
        "needs": [NEEDS[need.kind].format(name=need.name) for need in verdict.needs],
        "notes": list(verdict.notes),
        "tried": verdict.tried,
    }


def of_other_frameworks(pattern: str) -> list[tuple[str, str]]:
    """Tasks that a pattern matches, of frameworks that name theirs: pairs of task and framework."""
    found = []
    for framework in framework_names():
        plug = framework_plug(framework)
        names = () if plug.of_lm_eval or plug.task_names is None else plug.task_names()
        found += [(name, framework) for name in names if fnmatchcase(name, pattern)]
    return sorted(found)


def row_of_other(task: str, framework: str) -> dict[str, Any]:
    """What is known of a task of another framework before it is prepared, as :func:`row_of` says it."""
    plug = framework_plug(framework)
    kind = plug.output_type or "generate_until"
    forms = request_forms(kind, plug.forms)
    asked = {kind: AS_IS if form in forms else None for kind, form in _FORM_OF.items()}
    return {
        "task": task,
        "family": framework,
        "output_type": kind,
        **asked,
        "reason": None,
        "why": None,
        "completions_reason": None,
        "echo_reason": None,
        "needs": [],
        "notes": [],
        "tried": False,
    }


def explain_other(task: str, framework: str) -> Explanation:
    """What to write for a task of another framework."""
    said = (
        f"{task} is a task of the framework {framework}.",
        "`testbench check` says whether it can be prepared.",
    )
    return Explanation(said, f"tasks:\n  - {{name: {task}, framework: {framework}}}\n")


def family_of(entry: Entry) -> str:
    """The folder of lm-eval's tasks that a task lies in, else the name of its own."""
    path = Path(entry.path or "")
    root = lm_eval_tasks()
    return path.relative_to(root).parts[0] if path.is_relative_to(root) else path.parent.name


def says(reason: Reason) -> str:
    """A reason in words, without a subject."""
    return REASONS[reason.code].says.format(detail=reason.detail)


def explain(entry: Entry, verdict: Verdict) -> Explanation:
    """Why a task can be measured or not, where, and what to do."""
    kind = verdict.output_type or "Python"
    said = [f"{entry.name} is a {kind} task of {family_of(entry)}."]
    modes = verdict.modes
    said += [
        f"On {_WHERE[where]} it is asked {_HOW[mode].format(name=entry.name)}."
        for where, mode in modes.items()
        if mode is not None and not (where == ECHO and modes[COMPLETIONS] == mode)
    ]
    if modes[CHAT] == CHAT_CHOICE:
        said.append(_NO_LETTERS.format(subject="it is"))
    reasons = dict.fromkeys(r for r in (verdict.obstacle, verdict.as_is) if r is not None)
    for reason in reasons:
        said.append(f"{_concerned(reason, verdict)} {says(reason)}: {_remedy(reason)}.")
    said += [f"{_upper(NEEDS[need.kind].format(name=need.name))}." for need in verdict.needs]
    said += [NOTES[note] for note in verdict.notes]
    if not verdict.tried:
        said.append("This is what its definition says; `testbench check` says whether it can be prepared.")
    return Explanation(tuple(said), _config(entry, verdict))


def _concerned(reason: Reason, verdict: Verdict) -> str:
    """How a sentence begins that gives a reason: with whom it concerns, where that is not everybody."""
    modes = verdict.modes
    if not any(modes.values()):
        return "It"
    return "Elsewhere not: it" if reason == verdict.obstacle else f"On {_WHERE[ECHO]} not: it"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _remedy(reason: Reason) -> str:
    if reason.code == "package" and importlib.util.find_spec(reason.detail) is not None:
        return "it is installed here, so see what `testbench check` says of the task"
    return REASONS[reason.code].remedy.format(detail=reason.detail)


def _config(entry: Entry, verdict: Verdict) -> str | None:
    """What to write under ``tasks`` of ``testbench.yaml``; None where nothing helps."""
    modes = verdict.modes
    if modes[CHAT] == CHAT_CHOICE:
        return f"tasks:\n  - {{name: {entry.name}, mode: chat_choice}}\n"
    if any(modes.values()):
        return f"tasks:\n  - {{name: {entry.name}}}\n"
    if verdict.as_is is None or verdict.as_is.code not in MENDABLE:
        return None
    by_letters = verdict.output_type == "multiple_choice" and verdict.chat == verdict.as_is
    lines = ["tasks:", f"  - name: {entry.name}"]
    if by_letters:
        lines.append("    mode: chat_choice")
    if verdict.as_is.code == "script":
        lines.append("    data:")
        lines += [f"      {split}: {split}.jsonl" for split in _splits(entry)]
    return "\n".join(lines) + "\n"


def _splits(entry: Entry) -> Iterator[str]:
    try:
        raw = raw_definition(Path(entry.path or ""))
    except (OSError, ValueError, RecursionError):
        raw = {}
    wanted = [raw.get("test_split") or raw.get("validation_split"), raw.get("fewshot_split")]
    yield from dict.fromkeys(str(split) for split in wanted if split) or ("test",)


def counts(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """How many tasks each kind of supplier can be asked, by the way of asking, and how many not, by reason.

    A row has ``group`` (``asked`` or ``not asked``), ``what`` (way or reason) and a number per kind of
    supplier. The first row counts all.
    """
    asked: dict[str, Counter[str]] = {kind: Counter() for kind in SUPPLIER_KINDS}
    total = 0
    for verdict in verdicts:
        total += 1
        for kind, mode in verdict.modes.items():
            if mode is not None:
                asked[kind][mode] += 1
            else:
                reason = verdict.reason_on(kind)
                asked[kind][reason.code if reason is not None else ""] += 1
    found = [{"group": "all", "what": "tasks", **dict.fromkeys(SUPPLIER_KINDS, total)}]
    for mode in (AS_IS, CHAT_CHOICE):
        found.append({"group": "asked", "what": mode, **{kind: asked[kind][mode] for kind in SUPPLIER_KINDS}})
    for code in REASONS:
        numbers = {kind: asked[kind][code] for kind in SUPPLIER_KINDS}
        if any(numbers.values()):
            found.append({"group": "not asked", "what": code, **numbers})
    return found


def explain_several(name: str, entries: Sequence[Entry]) -> Explanation:
    """What a group or tag comes to."""
    verdicts = [verdict_on(entry) for entry in entries]
    by_mode = Counter(verdict.modes[CHAT] for verdict in verdicts)
    said = [f"{name} stands for {counted(len(entries), 'task')}."]
    for mode, text in ((AS_IS, "as lm-eval asks them"), (CHAT_CHOICE, "as choices of letters")):
        if by_mode[mode]:
            said.append(f"On {_WHERE[CHAT]} {by_mode[mode]} are asked {text}.")
    if by_mode[CHAT_CHOICE]:
        said.append(_NO_LETTERS.format(subject=f"{by_mode[CHAT_CHOICE]} of them are"))
    reasons = Counter(verdict.obstacle for verdict in verdicts if verdict.obstacle is not None)
    for reason, number in reasons.most_common(5):
        said.append(f"Not asked there: {number}, each of which {says(reason)}.")
    if not any(verdict.modes[CHAT] for verdict in verdicts):
        return Explanation(tuple(said))
    mode = ", mode: chat_choice" if by_mode[CHAT_CHOICE] else ""
    return Explanation(tuple(said), f"tasks:\n  - {{name: {name}{mode}}}\n")
