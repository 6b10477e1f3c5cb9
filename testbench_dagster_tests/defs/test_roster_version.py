"""What Dagster tells two rosters apart by."""

from __future__ import annotations

from collections.abc import Callable

from testbench_dagster.defs.network.assets import roster_version
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.workspace import Workspace


def test_another_price_is_another_roster(open_workspace: Callable[..., Workspace]) -> None:
    def version(price: dict[str, float] | None) -> str:
        workspace = open_workspace({"address": "a", **({} if price is None else {"price": price})})
        report = refresh_roster(workspace)
        assert report.anything_new, "else nobody would look at the version"
        return roster_version(report.known)

    prices = [
        None,
        {"prompt": 1, "completion": 2},
        {"prompt": 1, "completion": 3},
        {"prompt": 0, "completion": 0},
    ]
    versions = [version(price) for price in prices]
    assert len(set(versions)) == len(prices)
    assert version(None) == versions[0], "the same roster, again and again, is the same"
