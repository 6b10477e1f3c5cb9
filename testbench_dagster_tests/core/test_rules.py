"""What the ``planning`` block refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from testbench_dagster.core.rules import PlanningSettings


def test_occasions_ascend_from_zero() -> None:
    settings = PlanningSettings.model_validate({"occasions_minutes": [0, 0.5, 4]})
    assert settings.occasions_minutes == (0, 0.5, 4)


@pytest.mark.parametrize(
    "minutes", [[], [0], [1, 2], [0, 0], [0, 5, 4], [0, float("inf")], [0, float("nan")]]
)
def test_occasions_that_say_nothing_are_refused(minutes: list[float]) -> None:
    with pytest.raises(ValidationError, match=r"at least two numbers of minutes that ascend from 0"):
        PlanningSettings.model_validate({"occasions_minutes": minutes})
