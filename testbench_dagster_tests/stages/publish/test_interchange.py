"""Names of files out of whatever suppliers call themselves, and files written for such suppliers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.publish.inspect_log import write_inspect_logs
from testbench_dagster.stages.publish.interchange import as_json, file_name
from testbench_dagster.stages.publish.lm_eval_log import write_lm_eval_logs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.read.asked import Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, Facts, configuration

HOSTILE = [
    "../../../etc/passwd",
    "..",
    ".",
    "",
    "/",
    "/etc/cron.d/x",
    "a/../../b",
    "nul\0byte",
    "x" * 10_000,
    "ü" * 5_000,
    "~root",
    "-rf",
    "line\nbreak",
    "\u202egnp",
    "half \ud800",
    "   ",
    "con\\aux",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_one_short_printable_part_of_a_path(text: str) -> None:
    check(file_name(text))


@given(st.text())
def test_so_it_is_of_any_text(text: str) -> None:
    check(file_name(text))


def check(name: str) -> None:
    assert name
    assert len(name.encode()) <= 120
    assert name.isprintable()
    assert "/" not in name and "\\" not in name
    assert name[0] not in ".-~"


def test_usual_names_are_those_of_lm_eval() -> None:
    def of_lm_eval(name: str) -> str:
        return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)

    for name in ("meta-llama/Llama-3.1-8B-Instruct", "gpt-4o:2024", "m", "a b [c]", "模型/七"):
        assert file_name(name) == of_lm_eval(name)


def test_different_texts_that_are_cut_stay_different() -> None:
    names = {file_name(text) for text in (*HOSTILE, "x" * 9_999, "nul\1byte", "_.")}
    assert len(names) == len(HOSTILE) + 3


def test_json_holds_what_no_utf8_can() -> None:
    value = {"a\ud800": ["b\udfff", 2**80, {"c": ("d",)}], "e": float("nan")}
    assert "2" in as_json(value).decode("utf-8")
    assert json.loads(as_json({"x": "\ud800", "n": 2**80})) == {"x": "\\ud800", "n": 2**80}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"tasks": [{"name": "starter_logic", "samples": "all"}], "sampling": {"max_age_days": 30}}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        made = Asked(facts, facts.registration("starter_logic", n_docs=10))
        made.answer(0, 1.0, "yes", extracted="yes")
        yield made


@pytest.mark.parametrize("write", [write_inspect_logs, write_lm_eval_logs])
def test_nothing_is_written_outside_the_folder(asked: Asked, tmp_path: Path, write: object) -> None:
    workspace = asked.facts.workspace
    [alpha] = named_suppliers(workspace, [ALPHA])
    out = tmp_path / "deep" / "out"
    before = everything(tmp_path)
    for model in HOSTILE:
        named = replace(alpha, model=model)
        written = write(workspace, out, [named], workspace.specs)  # type: ignore[operator]
        assert written, model
        assert all(out in path.parents and path.stat().st_size for path in written)
    after = {path for path in everything(tmp_path) if not path.startswith(f"{out.parent}")}
    assert after == before
    assert not [path for path in everything(out) if "partial" in path]


def everything(folder: Path) -> set[str]:
    """All files but those of stores and caches, which come and go beside what is written."""
    found = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return {path for path in found if not re.search(r"/(\.testbench|cache)/", path)}
