"""What tests of identity begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.identify.town import TASKS, Open, Town


@pytest.fixture
def town(open_installation: Callable[..., Workspace]) -> Open:
    def build(*names: str, **blocks: Any) -> Town:
        workspace = open_installation(*({"address": name} for name in names), tasks=TASKS, **blocks)
        refresh_roster(workspace)
        return Town(workspace)

    return build
