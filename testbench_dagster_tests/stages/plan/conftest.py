"""The installation that planning's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster_tests.stages.plan.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Any]:
    made: list[Stage] = []

    def make(settings: dict[str, Any] | None = None, **options: Any) -> Stage:
        made.append(Stage(tmp_path, settings or {}, **options))
        return made[-1]

    yield make
    for one in made:
        one.workspace.close()
