"""Reads the planning rules of pocket-ml-testbench and writes them as ``testbench.yaml``.

There the ``frameworks`` object of the manager's configuration holds rules as short strings, per framework and
task, ``any`` standing for the tasks that are not named:

    task_types           numerical | signature
    task_dependency      FRAMEWORK:TASK:present|ok|equal:VALUE, or none:none:none:none
    taxonomy_dependency  NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES, or none:none:none:none
    schedule_limits      N:session|block|hours|minutes, or none:none
    trigger_minimum      N
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.rules import PlanningRule, PlanningSettings

#: The framework of this name there is the one of that name here, its tasks included.
SIGNATURES = "signatures"
_SIGNATURE_TASKS = ("tokenizer", "config", "identity")

ANY = "any"
NONE = "none"

GRAMMARS = {
    "task_types": "numerical | signature",
    "task_dependency": "FRAMEWORK:TASK:present|ok|equal:VALUE, or none:none:none:none",
    "taxonomy_dependency": "NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES, or none:none:none:none",
    "schedule_limits": "N:session|block|hours|minutes (N a whole number), or none:none",
    "trigger_minimum": "N (a whole number)",
}
_LISTS = ("task_dependency", "taxonomy_dependency")
_MOST_DIGITS = 7  # the schedules of testbench.yaml have no more
_SHOWN_CHARS = 100
_UNITS = ("session", "block", "hours", "minutes")

#: The manager's period for benchmarks; without a schedule it asked at every run.
MANAGER_MINUTES = 5


@dataclass(frozen=True)
class Imported:
    """``text`` is YAML for testbench.yaml; ``notes`` tell what was dropped, changed or is still to do."""

    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Translated:
    """One framework in the words of testbench.yaml: its rules for all tasks, and those of named ones.

    ``named`` says what a task does not share with ``common``.
    """

    name: str
    common: dict[str, Any]
    named: dict[str, dict[str, Any]]
    notes: tuple[str, ...]


def import_frameworks(
    frameworks: Mapping[str, Any],
    names: str | Sequence[str] | None = None,
    *,
    blocks_per_session: int | None = None,
) -> Imported:
    """Translate frameworks' rules to a ``planning`` block and the ``planning`` of the tasks they name.

    Of several frameworks the first that is not ``signatures`` gives the ``planning`` block. What others say
    of tasks that they do not name cannot be written down without these: it follows as a comment.

    Args:
        frameworks: the ``frameworks`` object of the manager's configuration.
        names: which of them, one or several; may be left out when there is only one.
        blocks_per_session: ``pocket_blocks_per_session`` of the same configuration.

    Raises:
        ConfigError: no such framework or several to choose from, a value that does not follow its grammar, or
            a task that two of them name with different rules.
    """
    if not isinstance(frameworks, Mapping) or not frameworks:
        raise ConfigError(
            "frameworks: it is no object with at least one framework; give it the manager's own"
        )
    known = ", ".join(sorted(str(key) for key in frameworks))
    if not names and len(frameworks) > 1:
        raise ConfigError(
            f"frameworks: there are several, choose one with --framework: {known}; repeat it for more"
        )
    chosen = [names] if isinstance(names, str) else list(dict.fromkeys(names or frameworks))
    for name in chosen:
        if name not in frameworks:
            raise ConfigError(f"--framework {name!r}: there is no such framework; there are: {known}")
    translated = [_Importer(frameworks, name).result(blocks_per_session) for name in chosen]
    translated.sort(key=lambda one: one.name == SIGNATURES)
    return _written(translated)


#: What a rule is that says nothing.
_SILENT: Mapping[str, Any] = {"schedule": None, "trigger_minimum": 0, "gates": []}


def _written(translated: Sequence[_Translated]) -> Imported:
    """Frameworks as one piece of testbench.yaml, the first one's rules being those of all tasks."""
    first, *others = translated
    planning = dict(first.common)
    for one in others:
        if "blocks_per_session" in one.common:
            planning.setdefault("blocks_per_session", one.common["blocks_per_session"])
    tasks = {task: (first.name, rule) for task, rule in first.named.items()}
    notes = dict.fromkeys(note for one in translated for note in one.notes)
    comments: list[str] = []
    for one in others:
        own = {task: {**one.common, **rule} for task, rule in one.named.items()}
        if one.name == SIGNATURES:
            own = {**dict.fromkeys(_SIGNATURE_TASKS, one.common), **own}
        for task, whole in own.items():
            rule = _beyond(planning, whole)
            before, known = tasks.setdefault(task, (one.name, rule))
            if known != rule:
                raise ConfigError(
                    f"task {task!r} has other rules in the framework {one.name!r} than in {before!r}, and is "
                    "one task here; import one of them, and configure the other under an alias"
                )
        rest = _beyond(planning, one.common)
        if rest and one.name != SIGNATURES:
            comments.append(f"# Of {one.name!r}, for the entry of each of its tasks that is not named above:")
            comments += [f"#   {line}" for line in _yaml({"planning": rest}).splitlines()]
            told = f"{one.name}: what it says of tasks that it does not name stands in a comment"
            notes[told] = None
    tasks = {task: (name, rule) for task, (name, rule) in tasks.items() if rule}
    document: dict[str, Any] = {"planning": planning}
    if tasks:
        document["tasks"] = [
            {"name": task, **_framework_of(name, task), "planning": rule}
            for task, (name, rule) in tasks.items()
        ]
    of = "the framework" if not others else "the frameworks"
    names = ", ".join(repr(one.name) for one in translated)
    head = f"# Planning rules of {of} {names} of pocket-ml-testbench.\n"
    tail = "".join(f"{line}\n" for line in comments)
    return Imported(head + _yaml(document) + tail, tuple(notes))


def _beyond(planning: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, Any]:
    """What a rule says otherwise than the planning of all tasks."""
    found = {}
    for key, nothing in _SILENT.items():
        value = rule.get(key, nothing)
        if value != planning.get(key, nothing):
            found[key] = value
    return found


def _framework_of(framework: str, task: str) -> dict[str, str]:
    """What a task's entry says of its framework: nothing where it is lm-eval's."""
    return {"framework": SIGNATURES} if framework == SIGNATURES and task in _SIGNATURE_TASKS else {}


def _whole(text: str) -> int | None:
    """A whole number of a sensible size, in ASCII figures; None where a text is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def _shown(value: object) -> str:
    """A value for a message, of which nobody wants to read megabytes."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )
    return text


class _Importer:
    """One framework being read; collects notes on the way."""

    def __init__(self, frameworks: Mapping[str, Any], name: str) -> None:
        self._frameworks = frameworks
        self._name = name
        self._notes: dict[str, None] = {}  # each once, in order
        self._signature_gates: set[str] = set()
        self._fields = {field: self._values(field) for field in GRAMMARS}
        for key in frameworks[name]:
            if key not in GRAMMARS:
                self._note(f"{name}.{key}: dropped, it is no rule known here")

    def result(self, blocks_per_session: int | None) -> _Translated:
        planning = self._rule(ANY)
        named = sorted({task for values in self._fields.values() for task in values} - {ANY})
        rules = {task: self._rule(task) for task in named}
        for field, values in self._fields.items():
            if values and ANY not in values:
                self._note(
                    f"{self._name}.{field}: it has no {ANY!r}; tasks not named there have no such rule"
                )
        for task in self._tasks_of_type("signature"):
            self._note(
                f"{self._name}.task_types.{task}: signature is dropped, a task itself tells what it yields"
            )
        defaults = self._validated(ANY, planning, PlanningSettings)
        self._mend(ANY, planning, defaults, defaults)
        for task, rule in rules.items():
            self._mend(task, rule, self._validated(task, rule, PlanningRule), defaults)
        every = [planning, *rules.values()]
        units = {rule["schedule"]["unit"] for rule in every if rule.get("schedule")}
        if "session" in units and blocks_per_session is not None:
            planning["blocks_per_session"] = blocks_per_session
            self._validated(ANY, planning, PlanningSettings)
        if units & {"session", "block"}:
            self._note("schedules count blocks: they need a supplier source whose roster tells a height")
        gates = [gate for rule in every for gate in rule.get("gates", ())]
        for taxonomy in sorted({gate["taxonomy"] for gate in gates if "taxonomy" in gate}):
            self._note(
                f"gates look at the taxonomy {taxonomy}: list it under taxonomies; its min_success, ignored "
                "there, and the age of its summary count here"
            )
        for task in sorted({gate["task"] for gate in gates if "task" in gate}):
            signs = f" with framework: {SIGNATURES}" if task in self._signature_gates else ""
            self._note(f"gates look at the task {task}: it must be configured under tasks{signs}")
        if named:
            self._note("the tasks listed hold planning only: merge it into their entries under tasks")
        return _Translated(self._name, planning, rules, tuple(self._notes))

    # -- reading ----------------------------------------------------------------------------------------

    def _values(self, field: str) -> dict[str, list[str]]:
        """The texts of a field by task."""
        rules = self._frameworks[self._name]
        if not isinstance(rules, Mapping):
            raise ConfigError(f"{self._name}: {rules!r} is no object; it should hold {', '.join(GRAMMARS)}")
        values = rules.get(field, {})
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self._name}.{field}: {values!r} is no object; write {{task or {ANY!r}: {GRAMMARS[field]}}}"
            )
        found: dict[str, list[str]] = {}
        for task, value in values.items():
            if not str(task).strip():
                raise ConfigError(f"{self._name}.{field}: {task!r} names no task; name one, or write {ANY!r}")
            texts = value if isinstance(value, list) else [value]
            for text in texts:
                if isinstance(text, bool) or not isinstance(text, (str, int)):
                    self._refuse(field, str(task), text)
            if field not in _LISTS and len(texts) != 1:
                self._refuse(field, str(task), value)
            found[str(task)] = [str(text).strip() for text in texts]
        return found

    def _rule(self, task: str) -> dict[str, Any]:
        """What the framework says of a task, in the words of testbench.yaml.

        A named task says what it does not share with ``any``, also that it has no schedule or no gates.
        """
        rule: dict[str, Any] = {}
        for text in self._fields["task_types"].get(task, ()):
            if text not in ("numerical", "signature"):
                self._refuse("task_types", task, text)
        for text in self._fields["schedule_limits"].get(task, ()):
            schedule = self._schedule(task, text)
            if schedule is not None or task != ANY:
                rule["schedule"] = schedule
        for text in self._fields["trigger_minimum"].get(task, ()):
            if (least := _whole(text)) is None:
                self._refuse("trigger_minimum", task, text)
            if least or task != ANY:
                rule["trigger_minimum"] = least
        if any(task in self._fields[field] for field in _LISTS):
            # the two kinds of gates are one list here: what a task does not say of one kind, any says
            gates = [
                gate
                for field in _LISTS
                for said_by in (task if task in self._fields[field] else ANY,)
                for text in self._fields[field].get(said_by, ())
                if (gate := self._gate(field, said_by, text)) is not None
            ]
            if gates or task != ANY:
                rule["gates"] = gates
        if task != ANY:
            common = self._rule(ANY)
            rule = {key: value for key, value in rule.items() if value != common.get(key, _SILENT[key])}
        return rule

    def _schedule(self, task: str, text: str) -> dict[str, Any] | None:
        number, _, unit = text.partition(":")
        if (number, unit) == (NONE, NONE):
            return None
        every = _whole(number)
        if every is None or unit not in _UNITS:
            self._refuse("schedule_limits", task, text)
        if every == 0:
            self._note(f"{self._name}.schedule_limits.{task}: {text!r} limits nothing and is dropped")
            return None
        return {"every": every, "unit": unit}

    def _gate(self, field: str, task: str, text: str) -> dict[str, Any] | None:
        parts = text.split(":")
        if parts[0] == NONE:
            return None
        if len(parts) != 4 or not all(parts[:3]):
            self._refuse(field, task, text)
        if field == "taxonomy_dependency":
            return self._taxonomy_gate(task, text, parts)
        return self._task_gate(task, text, parts)

    def _taxonomy_gate(self, task: str, text: str, parts: list[str]) -> dict[str, Any]:
        try:
            score, success, samples = float(parts[1]), float(parts[2]), _whole(parts[3])
        except ValueError:
            self._refuse("taxonomy_dependency", task, text)
        if samples is None or not (0 <= score <= 1 and 0 <= success <= 1):
            self._refuse("taxonomy_dependency", task, text)
        return {"taxonomy": parts[0], "min_score": score, "min_success": success, "min_samples": samples}

    def _task_gate(self, task: str, text: str, parts: list[str]) -> dict[str, Any] | None:
        framework, other, condition, value = parts
        where = f"{self._name}.task_dependency.{task}: {text!r}"
        if condition not in ("present", "ok", "equal"):
            self._refuse("task_dependency", task, text)
        if (framework, other) == (SIGNATURES, "identity") and (
            condition != "equal" or value == "UNIQUE_OR_PROXY"
        ):
            self._note(f"{where} is dropped: identity groups and their proxies see to it here")
            return None
        if framework == SIGNATURES:
            self._signature_gates.add(other)
        elif framework != self._name:
            self._note(f"{where}: the framework {framework} is dropped, a task has one name here")
        if condition != "equal":
            return {"task": other, "is": condition}
        if self._is_signature(framework, other):
            self._note(
                f"{where}: hashes are made in another way here (no transformers); put in what "
                "the collection signatures says"
            )
            return {"task": other, "is": "equal", "value": value}
        try:
            number = float(value)
        except ValueError:
            self._refuse("task_dependency", task, text)
        if not math.isfinite(number):
            self._refuse("task_dependency", task, text)
        self._note(f"{where} was never true for numbers; here it is when the score is {number:g}")
        return {"task": other, "is": "equal", "value": number}

    def _is_signature(self, framework: str, task: str) -> bool:
        rules = self._frameworks.get(framework)
        types = rules.get("task_types", {}) if isinstance(rules, Mapping) else {}
        default = "signature" if framework == SIGNATURES else "numerical"
        return isinstance(types, Mapping) and types.get(task, types.get(ANY, default)) == "signature"

    def _tasks_of_type(self, kind: str) -> list[str]:
        return [task for task, texts in self._fields["task_types"].items() if texts == [kind]]

    # -- checking ---------------------------------------------------------------------------------------

    def _validated(self, task: str, rule: Mapping[str, Any], model: type[PlanningRule]) -> PlanningRule:
        try:
            return model.model_validate(rule)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ConfigError(f"{self._name}, task {task!r}: {where}: {problem['msg']}") from None

    def _mend(self, task: str, rule: dict[str, Any], own: PlanningRule, defaults: PlanningRule) -> None:
        """Give a trigger minimum without a schedule the one it silently had."""
        applies = own if own is defaults else own.over(defaults)
        if applies.trigger_minimum and applies.schedule is None:
            rule["schedule"] = {"every": MANAGER_MINUTES, "unit": "minutes"}
            self._note(
                f"{self._name}.trigger_minimum.{task}: without a schedule it asked at every run of the "
                f"manager, every {MANAGER_MINUTES} minutes by default; that is its schedule now; raise it"
            )

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _refuse(self, field: str, task: str, value: object) -> NoReturn:
        raise ConfigError(
            f"framework {self._name!r}, task {task!r}: {field}: {_shown(value)} is malformed; "
            f"write {GRAMMARS[field]}"
        )
