"""The fault table: what its columns promise together, and that the documentation shows it as it is."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from testbench_dagster.core.faults import Closing, Fault, FaultRow, Owner, Pause
from testbench_dagster_tests.tasks.layouts import REPOSITORY

DOCS = REPOSITORY / "docs"
AVAILABILITY = {True: "answered", False: "not answered", None: "–"}


def table() -> str:
    """The table of reference.md as it has to be."""
    lines = [
        "| fault | when | owner | again in a run | occasions | what waits | its doc becomes | "
        "in `availability` | do |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for fault in Fault:
        row = fault.row
        cells = (
            f"`{fault.value}`",
            row.when,
            "–" if row.owner is Owner.NONE else row.owner.value,
            "–" if not any(row.in_run) else "{} / {}".format(*row.in_run),
            str(row.occasions or "–"),
            row.pause.value,
            row.closes.value,
            AVAILABILITY[row.available],
            "–" if fault.answered else row.remedy,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_reference_shows_the_table() -> None:
    reference = (DOCS / "reference.md").read_text(encoding="utf-8")
    section = re.search(r"^## Faults$(.*?)^## ", reference, re.M | re.S)
    assert section, "docs/reference.md has no section Faults"
    shown = "\n".join(line for line in section[1].splitlines() if line.startswith("|"))
    wanted = table()
    assert shown == wanted, f"paste this table into the section Faults of docs/reference.md:\n\n{wanted}\n"


@pytest.mark.parametrize("fault", Fault)
def test_the_columns_of_a_row_agree(fault: Fault) -> None:
    row = fault.row
    assert fault.answered == (row.owner is Owner.NONE)
    assert (row.occasions > 0) == (row.closes not in (Closing.SCORED, Closing.OPEN))
    assert all(0 <= further <= 5 for further in row.in_run)
    assert not any(row.in_run) or row.occasions, "what stays open is not asked again in the run"
    if row.pause is Pause.PROBE:
        assert fault.owner.ours and row.closes is Closing.MIXED, "a state is believed while it is total"
    if row.pause is Pause.STOP:
        assert row.closes is Closing.OPEN
    assert row.available is True or not fault.answered
    assert not row.cut_short or fault.answered
    assert bool(row.remedy) != fault.answered, "whoever is told of a failure is told what to do"
    if fault.owner in (Owner.GATEWAY, Owner.SESSION, Owner.BUDGET, Owner.NODE, Owner.INTERNAL):
        assert "ask its operator" not in row.remedy, "no operator of a supplier can mend this"
    if row.paces:
        assert any(row.in_run), "a wait is kept before a further attempt"
    if row.slows_host:
        assert row.slows_supplier
    if row.kept_by_session:
        assert not row.reached and not row.charged and not fault.blames_supplier
    if not row.reached:
        assert row.available is not True and not fault.answered


def test_the_table_is_that_of_the_rules() -> None:
    """Further attempts at first and later occasions, how many, what waits, availability (A2 of the rules)."""
    table = {
        "ok": ("0/0", 0, "–", True),
        "truncated": ("0/0", 0, "–", True),
        "supplier_protocol": ("1/1", 2, "doc", False),
        "supplier_refused": ("1/1", 2, "–", True),
        "supplier_signature": ("1/1", 2, "doc", False),
        "unscorable": ("0/0", 1, "–", True),
        "supplier_http": ("3/1", 3, "lane", False),
        "unavailable": ("3/1", 3, "lane", False),
        "supplier_timeout": ("1/1", 3, "lane", False),
        "transport": ("3/1", 3, "lane", False),
        "rate_limited": ("5/1", 3, "lane", None),
        "client_request": ("0/0", 2, "–", None),
        "unsupported": ("0/0", 2, "–", None),
        "quota": ("1/1", 3, "probe", None),
        "credentials": ("1/1", 3, "probe", None),
        "gateway": ("2/1", 3, "lane", None),
        "node": ("2/1", 3, "lane", None),
        "budget": ("0/0", 0, "stop", None),
        "internal": ("0/0", 0, "stop", None),
    }
    for name, (in_run, occasions, pause, available) in table.items():
        row = Fault(name).row
        found = ("{}/{}".format(*row.in_run), row.occasions, row.pause.value, row.available)
        assert found == (in_run, occasions, pause, available), name
    assert {fault.value for fault in Fault} - set(table) == {"empty", "rollover"}


def test_who_answers_decides_whom_it_counts_against() -> None:
    for fault in Fault:
        assert fault.blames_supplier == (fault.owner is Owner.SUPPLIER)
    assert {owner for owner in Owner if owner.ours} == {Owner.CLIENT, Owner.INTERNAL}
    assert {fault.owner for fault in Fault} == set(Owner), "every owner answers for something"


def test_a_member_is_its_stored_name() -> None:
    for fault in Fault:
        assert Fault(fault.value) is fault == fault.value == str(fault)
        assert pickle.loads(pickle.dumps(fault)) is fault is copy.deepcopy(fault)  # noqa: S301
    assert len({fault.value for fault in Fault}) == len(Fault)
    with pytest.raises(ValueError, match="is not a valid Fault"):
        Fault("unheard of")


def test_a_fault_without_a_row_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"fault 'new' has no row: write it as 'new', FaultRow\(\.\.\.\)"):
        Fault.__new_member__(Fault, "new")  # as the class is made: a row that was forgotten


def test_a_row_has_the_defaults_of_a_fault_that_says_nothing_of_the_supplier() -> None:
    row = FaultRow(Owner.INTERNAL, "whatever", "look at the log")
    assert row.closes is Closing.OPEN and row.pause is Pause.NONE
    assert (row.occasions, row.in_run) == (0, (0, 0))
    assert row.available is None
