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
from collections.abc import Mapping
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
_UNITS = ("session", "block", "hours", "minutes")

#: The manager's period for benchmarks; without a schedule it asked at every run.
MANAGER_MINUTES = 5


@dataclass(frozen=True)
class Imported:
    """``text`` is YAML for testbench.yaml; ``notes`` tell what was dropped, changed or is still to do."""

    text: str
    notes: tuple[str, ...]


def import_frameworks(
    frameworks: Mapping[str, Any], name: str | None = None, *, blocks_per_session: int | None = None
) -> Imported:
    """Translate one framework's rules to a ``planning`` block and the ``planning`` of the tasks it names.

    Args:
        frameworks: the ``frameworks`` object of the manager's configuration.
        name: which framework; may be left out when there is only one.
        blocks_per_session: ``pocket_blocks_per_session`` of the same configuration.

    Raises:
        ConfigError: no such framework or several to choose from, or a value that does not follow its grammar.
    """
    if not isinstance(frameworks, Mapping) or not frameworks:
        raise ConfigError(
            "frameworks: it is no object with at least one framework; give it the manager's own"
        )
    known = ", ".join(sorted(str(key) for key in frameworks))
    if name is None and len(frameworks) > 1:
        raise ConfigError(f"frameworks: there are several, choose one with --framework: {known}")
    chosen = next(iter(frameworks)) if name is None else name
    if chosen not in frameworks:
        raise ConfigError(f"--framework {chosen!r}: there is no such framework; there are: {known}")
    return _Importer(frameworks, chosen).result(blocks_per_session)


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

    def result(self, blocks_per_session: int | None) -> Imported:
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
        document: dict[str, Any] = {"planning": planning}
        if kept := {task: rule for task, rule in rules.items() if rule}:
            document["tasks"] = [
                {"name": task, **self._framework_of(task), "planning": rule} for task, rule in kept.items()
            ]
        head = f"# Planning rules of the framework {self._name!r} of pocket-ml-testbench.\n"
        body = yaml.safe_dump(
            document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
        )
        return Imported(head + body, tuple(self._notes))

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
            if not text.isdecimal():
                self._refuse("trigger_minimum", task, text)
            if int(text) or task != ANY:
                rule["trigger_minimum"] = int(text)
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
            empty: dict[str, Any] = {"schedule": None, "trigger_minimum": 0, "gates": []}
            rule = {key: value for key, value in rule.items() if value != common.get(key, empty[key])}
        return rule

    def _schedule(self, task: str, text: str) -> dict[str, Any] | None:
        number, _, unit = text.partition(":")
        if (number, unit) == (NONE, NONE):
            return None
        if not number.isdecimal() or unit not in _UNITS:
            self._refuse("schedule_limits", task, text)
        if int(number) == 0:
            self._note(f"{self._name}.schedule_limits.{task}: {text!r} limits nothing and is dropped")
            return None
        return {"every": int(number), "unit": unit}

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
            score, success, samples = float(parts[1]), float(parts[2]), int(parts[3])
        except ValueError:
            self._refuse("taxonomy_dependency", task, text)
        if not (0 <= score <= 1 and 0 <= success <= 1 and samples >= 0):
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

    def _framework_of(self, task: str) -> dict[str, str]:
        """What a task's entry says of its framework: nothing where it is lm-eval's."""
        return {"framework": SIGNATURES} if self._name == SIGNATURES and task in _SIGNATURE_TASKS else {}

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
            f"framework {self._name!r}, task {task!r}: {field}: {value!r} is malformed; "
            f"write {GRAMMARS[field]}"
        )
