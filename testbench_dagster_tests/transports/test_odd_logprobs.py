"""Odd log-probabilities beside lm-eval's own client: our siblings, and those of shared/."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster_tests import echoing
from testbench_dagster_tests.servers import free_port, stop, wait_for_port
from testbench_dagster_tests.tasks.layouts import REPOSITORY, SHARED
from testbench_dagster_tests.transports import odd_logprobs
from testbench_dagster_tests.transports.odd_logprobs import LmEval, read_here

TOOL = SHARED / "tools/odd_logprobs.py"
CONTEXT, RIGHT, WRONG = "Question: is it so ?\nAnswer:", " yes", " never"
#: Modes that show no tokens of the prompt, or not what they are: only a tokenizer of the model could tell.
UNREADABLE = {"lp_noecho", "lp_chatstyle", "lp_tokenid"}
#: One token across the boundary, of which no number can be made.
MERGED = {"lp_merge"}


def test_the_docs_have_the_table_of_these_rows() -> None:
    text = (REPOSITORY / "docs/reference.md").read_text(encoding="utf-8")
    assert odd_logprobs.table() in text, "python -m testbench_dagster_tests.transports.odd_logprobs prints it"


def test_every_mode_stands_in_one_row() -> None:
    listed = [mode for modes in odd_logprobs.ROWS.values() for mode in modes]
    # that which merges tokens of some docs alone is about scores
    assert sorted(listed) == sorted(set(echoing.MODES) - {"merged_twice"})


def shared_modes() -> list[str]:
    """All that the tool's source compares its mode with."""
    if not TOOL.is_file():
        return []
    words = TOOL.read_text(encoding="utf-8").split('"')
    return sorted({word for word in words if word.startswith("lp_") and word.isidentifier()})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    docs: Path = tmp_path_factory.mktemp("docs") / "docs.jsonl"
    doc = {"query": CONTEXT, "choices": [RIGHT.strip(), WRONG.strip()], "gold": 0}
    docs.write_text(json.dumps(doc) + "\n", encoding="utf-8")
    port = free_port()
    process = subprocess.Popen([sys.executable, str(TOOL), str(port), str(docs)])
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


@pytest.fixture(scope="module")
def lm_eval() -> LmEval:
    return LmEval()


@pytest.mark.parametrize("mode", shared_modes())
def test_where_lm_eval_reads_them_rightly_we_read_the_same(mode: str, shared: str, lm_eval: LmEval) -> None:
    url = f"{shared}/{mode}/v1"
    context_tokens = len(["Question", ":", " is", " it", " so", " ", "?", "\n", "Answer", ":"])
    attempts = read_here(url, CONTEXT, (RIGHT, WRONG))
    found = [lm_eval.read(url, CONTEXT + each, context_tokens) for each in (RIGHT, WRONG)]
    here = [(attempt.logprob, attempt.greedy) for attempt in attempts]
    if mode in UNREADABLE | MERGED:
        wanted = Fault.UNSUPPORTED if mode in MERGED else Fault.SUPPLIER_PROTOCOL
        assert [attempt.fault for attempt in attempts] == [wanted] * 2
    for attempt, theirs, value in zip(attempts, found, (-0.1, -2.0), strict=True):
        if isinstance(theirs, tuple) and abs(theirs[0] - value) < 0.01 and mode not in UNREADABLE | MERGED:
            assert (attempt.logprob, attempt.greedy) == theirs
    if mode not in UNREADABLE | MERGED | {"lp_400long"}:
        assert here[0][0] is not None and here[1][0] is not None and here[0][0] > here[1][0], attempts
