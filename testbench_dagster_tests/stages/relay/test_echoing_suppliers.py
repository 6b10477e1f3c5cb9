"""Echoed log-probabilities from request to score: what becomes of suppliers that answer in odd ways."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.window import Window
from testbench_dagster.stages.score.remarks import refused_parameters
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests import echoing
from testbench_dagster_tests.servers import free_port, stop, wait_for_port
from testbench_dagster_tests.tasks.layouts import SHARED

#: Some 1,500 calls, whose scores take the worker a while.
pytestmark = pytest.mark.slow


def rows(workspace: Workspace) -> dict[tuple[str, str, str], Window]:
    """The windows by mode, task and metric."""
    found = windows(workspace)
    return {(row.supplier.partition("@")[0], row.task, row.metric or ""): row for row in found}


def verdicts(found: Mapping[tuple[str, str, str], Window], task: str = "echoes") -> dict[str, Any]:
    """By mode the score, or why there is none, and what went wrong of how many docs."""
    return {
        mode: (row.score if row.status == "ok" else row.status, dict(row.errors))
        for (mode, of, metric), row in found.items()
        if of == task and metric == "acc"
    }


@dataclass
class Measured:
    """An installation that was measured, its windows, and how often each mode was called."""

    workspace: Workspace
    rows: dict[tuple[str, str, str], Window]
    calls: Counter[str]


@pytest.fixture(scope="module")
def own(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("echoing")
    with echoing.echoing() as (root, calls):
        urls = {mode: f"{root}/{mode}/v1" for mode in echoing.MODES}
        workspace = echoing.measured(echoing.installation(folder / "own", urls, echoing.DOCS), worker)
    yield Measured(workspace, rows(workspace), calls)
    del workspace.worker
    workspace.close()


RIGHT = (1.0, {})
ROW = Fault.UNSUPPORTED.row
#: What is not a full score, by mode.
OTHERS = {
    "merged": ("refused", {"unsupported": 6}),
    # four right of six: who merges tokens where it would be wrong gains nothing
    "merged_twice": (4 / 6, {"unsupported": 2}),
    "no_echo": ("unsupported", {}),
    "no_logprobs": ("unsupported", {}),
    "all_null": ("unsupported", {}),
    "token_ids": ("unsupported", {}),
}


def test_verdicts(own: Measured) -> None:
    assert verdicts(own.rows) == {mode: OTHERS.get(mode, RIGHT) for mode in echoing.MODES}


def test_nobody_is_blamed_for_a_tokenizer(
    own: Measured,
) -> None:
    # a probe, and five calls that no answer was among: the rest is not asked in vain
    assert own.calls["merged"] < 10
    refused = [row for row in own.rows.values() if row.primary]
    assert refused_parameters(own.workspace, refused) == {
        ("merged@external", task): f"its answers cannot be scored: {ROW.when}; {ROW.remedy}"
        for task in ("echoes", "greedy")
    }


@pytest.mark.parametrize("mode", ["tops_null", "tops_absent"])
def test_without_alternatives_what_needs_them_has_no_value(mode: str, own: Measured) -> None:
    rows = own.rows
    assert rows[mode, "echoes", "acc"].score == rows[mode, "echoes", "acc_norm"].score == 1.0
    assert rows["plain", "echoes", "exact_match"].score == 1.0
    assert (mode, "echoes", "exact_match") not in rows
    # whether the target is the likeliest is all that is asked there: nothing is known, nobody is blamed
    assert rows["plain", "greedy", "acc"].score == 1.0
    unknown = rows[mode, "greedy", "acc"]
    assert (unknown.status, unknown.score, unknown.n_failed) == ("no_data", None, 0)
    assert rows[mode, "greedy", "perplexity"].score == rows["plain", "greedy", "perplexity"].score


#: The modes of ``odd_logprobs.py``; with any other name it answers as it should. That with ``-Infinity`` in
#: its JSON belongs to the tests of reading JSON.
SHARED_MODES = (
    "lp", "lp_bos", "lp_bos0", "lp_bos_empty", "lp_bos_both", "lp_noecho", "lp_chatstyle", "lp_nooffset",
    "lp_offnull", "lp_offneg", "lp_offempty", "lp_offfloat", "lp_topnull", "lp_topabsent", "lp_toplist",
    "lp_topother", "lp_neg9999", "lp_null", "lp_nogen", "lp_gen2", "lp_zero", "lp_pos", "lp_tokenid",
    "lp_gspace", "lp_firstzero", "lp_prompt", "lp_textnull", "lp_400long", "lp_fffd", "lp_merge",
)  # fmt: skip
SHARED_OTHERS = {
    "lp_merge": ("refused", {"unsupported": 18}),
    # it refuses the probe, whose length is odd
    "lp_400long": ("unsupported", {}),
    **dict.fromkeys(("lp_noecho", "lp_chatstyle", "lp_tokenid"), ("unsupported", {})),
}


def test_the_modes_of_the_shared_tool(shared: Path, tmp_path: Path, worker: FrameworkWorker) -> None:
    tool = SHARED / "tools/odd_logprobs.py"
    path = shared / "mc_datasets/arc_easy.jsonl.gz"
    if not tool.exists():
        pytest.skip(f"{tool} is absent")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        docs = [json.loads(line) for line, _ in zip(file, range(12), strict=False)]
    docs = [*({**doc, "query": f"{doc['query']}\nAnswer:"} for doc in docs), *echoing.DOCS]
    port = free_port()
    urls = {mode: f"http://127.0.0.1:{port}/{mode}/v1" for mode in SHARED_MODES}
    config = echoing.installation(tmp_path / "shared", urls, docs, tasks=["echoes"])
    process = subprocess.Popen([sys.executable, str(tool), str(port), str(tmp_path / "shared/docs.jsonl")])
    try:
        wait_for_port(port, process)
        workspace = echoing.measured(config, worker)
    finally:
        stop(process)
    with workspace:
        found = rows(workspace)
        del workspace.worker
    assert verdicts(found) == {mode: SHARED_OTHERS.get(mode, RIGHT) for mode in SHARED_MODES}
