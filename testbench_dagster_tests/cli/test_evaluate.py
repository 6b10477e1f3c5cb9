"""What ``testbench run`` says where nothing came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs.local_evaluation import RunReport


@pytest.mark.parametrize(
    ("nothing_allowed", "problem", "told"),
    [
        (True, "nothing was scored: a cap of 0 relays allows none to be sent", None),
        (False, "nothing was scored", "nothing was scored; `testbench check` says why"),
    ],
)
def test_check_is_named_where_it_has_something_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_allowed: bool, problem: str, told: str | None
) -> None:
    def run(*_: Any, **options: Any) -> RunReport:
        assert options["max_relays"] == 0
        return RunReport((), (), 1, 0, 0, problem=problem, nothing_allowed=nothing_allowed)

    monkeypatch.setattr(Testbench, "run", run)
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "starter_logic"}]}), encoding="utf-8")
    done = CliRunner().invoke(cli, ["-c", str(path), "run", "--max-relays", "0"], standalone_mode=False)
    assert isinstance(done.exception, TestbenchError) and str(done.exception) == (told or problem)
