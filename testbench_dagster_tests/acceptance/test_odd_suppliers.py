"""Every kind of odd supplier of shared/ in one run: each comes to its own end, and holds up nobody else."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.harness import Finished, Installation
from testbench_dagster_tests.servers import ends_with_us, free_port, stop
from testbench_dagster_tests.transports.odd import RIGHT
from testbench_dagster_tests.transports.test_odd_answers import (
    MODES,
    ODD_SUPPLIERS,
    OTHER_MODES,
    SOMETIMES,
    WAITS,
)

pytestmark = pytest.mark.slow(minutes=4)

DOCS = 4
#: Whose answers are right, by what they are read as.
WELL = sorted(
    {m for m, (fault, text) in MODES.items() if fault is Fault.OK and RIGHT in (text or "")}
    | {m for m, fault in OTHER_MODES.items() if fault is Fault.OK}
)
#: Whose answers are read, and say nothing or what is wrong.
EMPTY = sorted(
    m
    for m, (fault, text) in MODES.items()
    if fault.answered and RIGHT not in (text or "") and not SOMETIMES.search(m)
)
#: Who gives no answer.
FAULTY = {
    m: f
    for m, f in {**{m: f for m, (f, _) in MODES.items()}, **OTHER_MODES}.items()
    if not f.answered and not SOMETIMES.search(m)
}
#: Who answers once it is asked again.
AT_FIRST = ("status503_once", "reset_once", "loading_503", "silent_close", *WAITS)
#: Who answers only the docs that `honest` is right about.
WITHHOLD = ("cherry_400", "cherry_500", "cherry_empty", "ctx_half", "status429_half", "reasoning_half")


def all_modes() -> list[str]:
    """All that the tool's source compares its mode with, and some of those it makes of a pattern."""
    source = ODD_SUPPLIERS.read_text(encoding="utf-8")
    named = re.findall(r'mode == "(\w+)"', source)
    waits = re.findall(r'"(ra_\w+)":', source)
    return sorted({*named, *waits, *AT_FIRST, *WITHHOLD, *MODES, *OTHER_MODES})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Finished, dict[str, dict[str, Any]]]]:
    if not ODD_SUPPLIERS.is_file():
        pytest.skip(f"{ODD_SUPPLIERS} is absent (set TESTBENCH_SHARED)")
    port = free_port()
    command = [sys.executable, str(ODD_SUPPLIERS), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=ends_with_us(signal.SIGKILL))
    assert process.stdout is not None and process.stdout.readline()
    try:
        urls = {mode: f"http://127.0.0.1:{port}/{mode}/v1" for mode in all_modes()}
        folder: Path = tmp_path_factory.mktemp("odd")
        installation = Installation(folder)
        settings = gsm8k.settings(urls, DOCS)
        settings["tasks"][0]["num_fewshot"] = 0
        # 142 suppliers in one process of one thread: while it is busy, a connection waits in its backlog
        settings["relays"] = {"connect_s": 30, "first_byte_s": 30, "idle_s": 30, "total_s": 60}
        settings["planning"] = {"occasions_minutes": [0, 0.02, 0.05]}
        installation.configure(**settings)
        done = installation.command("run", timeout_s=500)
        rows = {row["address"]: row for row in installation.scores() if row["primary"]}
        yield done, rows
    finally:
        stop(process)


def test_it_ends_and_says_who_did_not_answer(ran: tuple[Finished, dict[str, dict[str, Any]]]) -> None:
    done, rows = ran
    assert done.code == 0 and "Traceback" not in done.err, done
    assert len(rows) == len(all_modes()) > 120


@pytest.mark.parametrize("mode", WELL)
def test_who_answers_is_scored_whatever_the_others_do(
    mode: str, ran: tuple[Finished, dict[str, dict[str, Any]]]
) -> None:
    row = ran[1][mode]
    assert (row["status"], row["n"], row["score"], row["errors"]) == ("ok", DOCS, 1.0, {}), row


@pytest.mark.parametrize("mode", EMPTY)
def test_what_is_read_is_scored(mode: str, ran: tuple[Finished, dict[str, dict[str, Any]]]) -> None:
    row = ran[1][mode]
    assert (row["status"], row["n"], row["n_failed"], row["n_open"]) == ("ok", DOCS, 0, 0), row
    assert row["score"] == row["score_answered"]
    assert row["score"] == (1.0 if RIGHT in (MODES[mode][1] or "") else 0.0)


@pytest.mark.parametrize("mode", FAULTY)
def test_who_does_not_answer_has_no_score_to_gain(
    mode: str, ran: tuple[Finished, dict[str, dict[str, Any]]]
) -> None:
    row = ran[1][mode]
    assert row["n"] == 0 and not row["score"], row
    errors = set(row["errors"])
    assert FAULTY[mode].value in errors, row
    # all of them share one server: its full backlog, at the start of all, is no fault of this one
    assert errors <= {FAULTY[mode].value, Fault.TRANSPORT.value}, row


@pytest.mark.parametrize("mode", AT_FIRST)
def test_who_fails_at_first_loses_nothing(mode: str, ran: tuple[Finished, dict[str, dict[str, Any]]]) -> None:
    row = ran[1][mode]
    # whether all its docs are asked again within the run depends on how long it asks to wait
    assert row["n_failed"] == 0 and row["n"] + row["n_open"] == DOCS, row
    assert row["score_answered"] in (None, 1.0), row


@pytest.mark.parametrize("mode", WITHHOLD)
def test_who_withholds_what_it_would_get_wrong_gains_nothing(
    mode: str, ran: tuple[Finished, dict[str, dict[str, Any]]]
) -> None:
    honest, row = ran[1]["honest"], ran[1][mode]
    assert honest["status"] == "ok" and honest["n"] == DOCS
    assert (row["score"] or 0.0) <= honest["score"], row


def test_every_mode_of_the_tool_is_one_of_these(ran: tuple[Finished, dict[str, dict[str, Any]]]) -> None:
    told = {*WELL, *EMPTY, *FAULTY, *AT_FIRST, *WITHHOLD, "honest", "ra_date", "long"}
    assert set(all_modes()) <= told, set(all_modes()) - told
