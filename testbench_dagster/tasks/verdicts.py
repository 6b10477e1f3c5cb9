"""What of lm-eval's tasks can be measured here, on which kind of supplier, and what is missing for the rest.

The verdicts on the tasks of the pinned lm-eval come with this package (:data:`PACKAGED`). They are found by
building, asking and scoring each task on rows that stand in for its data set
(:mod:`testbench_dagster.tasks.lm_eval_adapter.judging`), and written by
``python -m testbench_dagster.tasks.lm_eval_adapter.judge_all``. Of tasks of other folders their definition
says what can be said without trying.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from testbench_dagster.core.prompt import TEXT_KINDS

PACKAGED = Path(__file__).parent / "lm_eval_verdicts.json.gz"

#: Kinds of suppliers by what they can be asked: messages; texts to continue; these with log-probabilities of
#: the text itself.
CHAT, COMPLETIONS, ECHO = "chat", "completions", "echo"
SUPPLIER_KINDS = (CHAT, COMPLETIONS, ECHO)
#: Ways in which a task is asked.
AS_IS, CHAT_CHOICE = "as is", "chat_choice"


class Reason(NamedTuple):
    """Why a task cannot be asked in a way: one of :data:`REASONS`, and what is special about it."""

    code: str
    detail: str = ""


class Need(NamedTuple):
    """What a task takes beside this package: one of :data:`NEEDS`, and its name."""

    kind: str
    name: str = ""


@dataclass(frozen=True)
class Cause:
    """What a reason means, in words that follow "it", and what can be done about it."""

    says: str
    remedy: str


#: Reasons by code, in the order in which the documentation lists them.
REASONS: Mapping[str, Cause] = {
    "package": Cause(
        "needs the Python package {detail}, which does not come with testbench",
        "install it (`pip install {detail}`, or as lm-eval's README of the task says), then see what "
        "`testbench check` says of the task",
    ),
    "resource": Cause(
        "needs nltk's data {detail}, which is loaded from the network",
        "run `python -m nltk.downloader {detail}`, or put it into $TESTBENCH_HOME/nltk_data",
    ),
    "script": Cause(
        "needs data set {detail}, whose own code `datasets` 4 and later do not run",
        "give its rows as local files under `data:`, or install `datasets<4`",
    ),
    "hub_code": Cause(
        "loads data or a tokenizer from the Hub in its own code, which was not tried",
        "with network try it: `testbench check` says whether it can be prepared",
    ),
    "own_data": Cause(
        "makes or loads its data in code of its own, which was not tried",
        "with network try it: `testbench check` says whether it can be prepared",
    ),
    "no_accuracy": Cause(
        "is not scored by accuracy, which is all that letters of options can give: {detail}",
        "measure it on a supplier with `api: completions` that echoes log-probabilities",
    ),
    "no_choice": Cause(
        "cannot be asked as a choice of letters: {detail}",
        "measure it on a supplier with `api: completions` that echoes log-probabilities",
    ),
    "loglikelihood": Cause(
        "asks how likely a given text is, which suppliers alone tell that echo log-probabilities",
        "measure it on a supplier with `api: completions` that echoes log-probabilities",
    ),
    "rolling": Cause(
        "asks how likely a whole text is, from its first token on",
        "measure it on a supplier with `api: completions` that echoes log-probabilities",
    ),
    "empty_context": Cause(
        "asks how likely texts are that nothing precedes, and no API tells that of a first token",
        "measure it as a choice (`mode: chat_choice`) on a supplier with `api: chat`",
    ),
    "runs_code": Cause(
        "runs code that the model wrote, which is off unless it is allowed",
        "set `allow_code_execution: true` where the sandbox for it holds, which `testbench check` says; "
        "a task whose helpers start programs themselves is refused even then (docs/code.md)",
    ),
    "media": Cause("shows images or plays sound, which relays do not carry", "remove it"),
    "python_class": Cause(
        "is a Python class of lm-eval's, not a YAML definition, and this version does not run these",
        "write a YAML of your own for its data (docs/reference.md, `task_paths`)",
    ),
    "broken": Cause(
        "cannot be built by lm-eval itself: {detail}", "mend its YAML in a copy under `task_paths`"
    ),
    "ends": Cause(
        "has code that ends when it is loaded, and says: {detail}",
        "do what it says, then see what `testbench check` says of the task",
    ),
    "not_judged": Cause(
        "may run: no stand-in rows were found that it takes ({detail})",
        "try it: `testbench check` says whether it can be prepared",
    ),
}
#: What a task takes beside this package, by kind.
NEEDS: Mapping[str, str] = {
    "hub": "its data set {name} is loaded from the Hub; without network, or where it takes permission, give "
    "local files under `data:`",
    "files": "its data are files that its YAML names; without network give local ones under `data:`",
    "metric": "its metric {name} is loaded from the Hub by `evaluate`",
    "package": "that metric imports {name}, which does not come with testbench: `pip install {name}`",
}
#: Reasons in the way of every mode that may be mended on this side: by a package, data, network.
MENDABLE = frozenset({"package", "resource", "script", "hub_code", "own_data", "ends", "not_judged"})
#: What a user should know of how it is asked.
NOTES: Mapping[str, str] = {
    "prefix": "Its prompt ends with the beginning of the answer, as a turn of the assistant: many chat "
    "servers begin a new turn instead of going on.",
    "first_token": "It asks for whole texts, from their first token on: servers that put no token of their "
    "own in front do not show that one's log-probability.",
    "stops": "It names more than the four stop strings that chat APIs take; the first four are sent.",
}


@dataclass(frozen=True)
class Verdict:
    """What was found of a task.

    ``as_is`` is in the way of asking it as lm-eval does, ``chat`` of asking a multiple-choice task by
    letters; None where nothing is. ``needs`` are what it takes beside this package, ``notes`` of
    :data:`NOTES`. ``tried``: whether it was built and scored on stand-in rows.
    """

    output_type: str | None
    as_is: Reason | None = None
    chat: Reason | None = None
    needs: tuple[Need, ...] = ()
    notes: tuple[str, ...] = ()
    tried: bool = True

    @property
    def modes(self) -> dict[str, str | None]:
        """By kind of supplier the way in which it is asked there; None where there is none."""
        as_is = AS_IS if self.as_is is None else None
        if self.output_type in TEXT_KINDS:
            return dict.fromkeys(SUPPLIER_KINDS, as_is)
        by_letters = self.output_type == "multiple_choice" and self.chat is None
        return {CHAT: CHAT_CHOICE if by_letters else None, COMPLETIONS: None, ECHO: as_is}

    @property
    def obstacle(self) -> Reason | None:
        """What is in the way on suppliers that only chat."""
        if self.modes[CHAT] is not None:
            return None
        if self.output_type == "multiple_choice":
            return self.chat
        return self.as_is or self._unheard

    @property
    def _unheard(self) -> Reason:
        """Why a task is not asked where log-probabilities are not echoed."""
        return Reason("rolling" if self.output_type == "loglikelihood_rolling" else "loglikelihood")

    def reason_on(self, kind: str) -> Reason | None:
        """What is in the way on suppliers of a kind; None where nothing is."""
        if self.modes[kind] is not None:
            return None
        return self.obstacle if kind == CHAT else self.as_is or self._unheard

    def as_json(self) -> dict[str, Any]:
        """The verdict as it is packaged, what is not set left out."""
        found: dict[str, Any] = {"type": self.output_type, "as_is": self.as_is, "chat": self.chat}
        found |= {"needs": self.needs, "notes": self.notes, "tried": None if self.tried else False}
        return {name: value for name, value in found.items() if value not in (None, ())}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """A packaged verdict."""
        as_is, chat = value.get("as_is"), value.get("chat")
        return cls(
            value.get("type"),
            None if as_is is None else Reason(*as_is),
            None if chat is None else Reason(*chat),
            tuple(Need(*need) for need in value.get("needs", ())),
            tuple(value.get("notes", ())),
            value.get("tried", True),
        )


def write_packaged(verdicts: Mapping[str, Verdict]) -> None:
    """Write :data:`PACKAGED`: each verdict once, and which one a task has."""
    different: dict[str, int] = {}
    numbers = {}
    for name in sorted(verdicts):
        text = json.dumps(verdicts[name].as_json(), sort_keys=True)
        numbers[name] = different.setdefault(text, len(different))
    content = {"tasks": numbers, "verdicts": [json.loads(text) for text in different]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    PACKAGED.write_bytes(gzip.compress(text.encode(), mtime=0))


@functools.cache
def packaged() -> Mapping[str, Verdict]:
    """The verdicts on the tasks of the pinned lm-eval and of the starter catalog."""
    content = json.loads(gzip.decompress(PACKAGED.read_bytes()))
    verdicts = [Verdict.from_json(value) for value in content["verdicts"]]
    return {name: verdicts[number] for name, number in content["tasks"].items()}
