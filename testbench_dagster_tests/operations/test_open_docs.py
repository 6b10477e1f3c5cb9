"""An outage under the daemon, with the clock of docs compressed: nothing is lost, and nobody is blamed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.operations.harness import Platform, platform, wait_until

pytestmark = pytest.mark.slow(minutes=3)

DOCS, TASKS = 8, 2
#: 72 hours become twelve minutes, and an hour's outage ten seconds.
OCCASIONS = [0, 0.5, 1, 2, 4, 6, 12]
OUTAGE_S = 20.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    planning = {"occasions_minutes": OCCASIONS, "retry_minutes": 0.25}
    with platform(tmp_path_factory.mktemp("outage"), 3, {}, planning=planning) as made:
        yield made


def test_an_outage_loses_no_doc_and_blames_nobody(running: Platform) -> None:
    down, *up = (f"{s['address']}@{s['service']}" for s in running.localnet.roster())
    running.localnet.fail(down.partition("@")[0])
    running.start()
    with running.workspace() as workspace:
        wait_until(
            "first attempts at the supplier that is down",
            lambda: workspace.documents.count(ATTEMPTS, {"supplier": down}),
            600,
        )
        time.sleep(OUTAGE_S)
        running.localnet.fail(down.partition("@")[0], rate=0.0)

        def closed() -> bool:
            rows = windows(workspace, suppliers=[down, *up])
            return len(rows) == 3 * TASKS and all(row.n == DOCS and row.n_open == 0 for row in rows)

        wait_until("all docs of all suppliers to be scored", closed, 900)
        for row in windows(workspace, suppliers=[down, *up]):
            assert (row.n_failed, row.n_void, row.status) == (0, 0, "ok"), row.supplier
        for key in up:
            made = list(workspace.documents.find(ATTEMPTS, {"supplier": key, "canary": False}))
            assert len(made) == DOCS * TASKS, "the others were asked once"
        again = workspace.documents.count(
            ATTEMPTS, {"supplier": down, "occasion": {"gt": 1}, "canary": False}
        )
        assert again, "and it at a later occasion"
