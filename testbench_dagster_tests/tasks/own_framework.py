"""A framework of an operator's own, found as an installed one is, that does what a task's options say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from testbench_dagster.core import frameworks

NAME = "own"
PLUG = """
from testbench_dagster.core.frameworks import FrameworkPlug

PLUG = FrameworkPlug(name="own", version="1", adapter="own_adapter:Own")
"""
#: ``hang``: the function that never returns, ``sleep`` whether it waits meanwhile. ``docs``, ``version``,
#: ``aggregation``, ``request`` and ``value``: what else it gives.
ADAPTER = """
import json
import os
import time

from testbench_dagster.core.prompt import BuiltPrompt, DocScore
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.tasks.adapter import TaskAdapter, each, registered


class Own(TaskAdapter):
    def register(self, spec):
        hang(spec, "register")
        docs = [{"n": n} for n in range(spec.options.get("docs", 8))]
        if "field" in spec.options:
            docs[3]["field"] = float(spec.options["field"])
        metric = MetricFlags(aggregation=spec.options.get("aggregation", "mean"), higher_is_better=True)
        version = spec.options.get("version", "1")
        return registered(spec, docs, asked="1", scored="1", version=version, metrics={"exact": metric})

    def build_prompts(self, spec, data, doc_ids, api, seed):
        hang(spec, "build_prompts")
        return [self._prompt(spec, doc_id, api) for doc_id in sorted(doc_ids)]

    def score(self, spec, data, answers):
        note(spec)
        hang(spec, "score")
        return each(answers, lambda answer: DocScore(answer.doc_id, {"none": {"exact": value(spec)}}))

    def _prompt(self, spec, doc_id, api):
        said = f"Say {doc_id}."
        asked = {"messages": [{"role": "user", "content": said}]} if api == "chat" else {"prompt": said}
        generation = {"max_gen_toks": 9, "temperature": 0}
        request = {"type": "generate_until", "idx": 0, **asked, "generation": generation}
        wrong = spec.options.get("request", {}) if doc_id == 5 else {}
        return BuiltPrompt(doc_id, [{**request, **wrong}], str(doc_id), 6, True)


def value(spec):
    return float(spec.options.get("value", 1))


def hang(spec, where):
    while spec.options.get("hang") == where:
        time.sleep(0.2 if spec.options.get("sleep") else 0)


def note(spec):
    if "calls" in spec.options:
        with open(spec.options["calls"], "a") as file:
            file.write("scored ")
"""


def written(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """A folder for PYTHONPATH in which the framework is installed; ``changes`` are texts to replace."""
    adapter = ADAPTER
    for old, new in (changes or {}).items():
        assert old in adapter
        adapter = adapter.replace(old, new)
    info = folder / "own-1.dist-info"
    info.mkdir(parents=True)
    (folder / "own_plug.py").write_text(PLUG, encoding="utf-8")
    (folder / "own_adapter.py").write_text(adapter, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[testbench_dagster.frameworks]\nown = own_plug:PLUG\n", encoding="utf-8"
    )
    return folder


@contextmanager
def installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str] | None = None
) -> Iterator[None]:
    """The framework, for this process and its children."""
    path = written(folder, changes)
    monkeypatch.syspath_prepend(str(path))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(path), before])))
    entry = EntryPoint(NAME, "own_plug:PLUG", frameworks.ENTRY_POINTS)
    monkeypatch.setattr(frameworks, "_others", lambda: {NAME: entry})
    frameworks.framework_plug.cache_clear()
    yield
    frameworks.framework_plug.cache_clear()
