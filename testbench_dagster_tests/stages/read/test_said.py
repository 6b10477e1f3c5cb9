"""What was said to a doc: counted over everybody, whoever stands on the page; only what still counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from testbench_dagster.board.site import Site
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.stages.read.answers import answers, doc
from testbench_dagster.stages.read.said import said
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.board.installations import NOW, Names, filled
from testbench_dagster_tests.board.test_app import LOGIC, client

GOOD, HALF, TWIN, BAD = Names().suppliers


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with filled(tmp_path) as found:
        yield found


def test_everybody_is_counted_as_the_pages_of_the_doc_show_them(workspace: Workspace) -> None:
    for doc_id in range(6):
        shown: dict[tuple[str, str], int] = {}
        after: str | None = None
        while True:
            page = doc(workspace, LOGIC, doc_id, after=after, limit=1, now=NOW)
            for one in page.answers:
                if one.extracted is not None:
                    shown[one.extracted, one.kind] = shown.get((one.extracted, one.kind), 0) + 1
            if (after := page.after) is None:
                break
        found = said(workspace, LOGIC, doc_id, now=NOW)
        assert {(one.text, one.kind): one.n for one in found.texts} == shown
        assert found.n == (3 if doc_id % 5 == 0 else 4), "one supplier failed every fifth"
        assert found.without_text == 0
        assert [one.n for one in found.texts] == sorted((one.n for one in found.texts), reverse=True)


def test_the_page_of_a_doc_counts_beyond_the_rows_it_shows(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbench_dagster.board.pages.docs.ROWS", 1)
    with client(workspace) as board:
        text = board.get(f"/doc/{LOGIC}/1").text
    assert "Of the last answers of 4 suppliers in all." in text
    assert text.count('<th scope="row">') == 1, "one row of answers"
    table = text[text.index('id="said"') : text.index('id="answers"')]
    assert sum(int(n) for n in re.findall(r'class="n strong">(\d+)<', table)) == 4


def test_what_counts_no_more_is_not_counted(workspace: Workspace) -> None:
    assert said(workspace, LOGIC, 1, now=NOW).n == 4
    supplier = typed.get(workspace.documents, SupplierRecord, HALF)
    assert supplier is not None
    supplier.cut_at = NOW
    typed.upsert(workspace.documents, SupplierRecord, [supplier])
    assert said(workspace, LOGIC, 1, now=NOW).n == 3, "its model changed since"
    supplier.cut_at, supplier.status, supplier.left_at = None, "left", NOW
    typed.upsert(workspace.documents, SupplierRecord, [supplier])
    assert said(workspace, LOGIC, 1, now=NOW).n == 3, "it left"
    assert said(workspace, LOGIC, 1, now=NOW + timedelta(days=400)).n == 0, "too old"
    assert said(workspace, LOGIC, 10_000, now=NOW).n == 0


def test_answers_without_an_extracted_text_are_told(workspace: Workspace) -> None:
    [score] = typed.find(workspace.documents, ScoreRecord, {"supplier": GOOD, "task": LOGIC, "doc_id": 1})
    score.extracted = None
    typed.upsert(workspace.documents, ScoreRecord, [score])
    found = said(workspace, LOGIC, 1, now=NOW)
    assert (found.n, found.without_text) == (4, 1)
    assert answers(workspace, GOOD, LOGIC, now=NOW).rows[1].extracted is None


def test_the_board_counts_anew_after_some_minutes(workspace: Workspace) -> None:
    site = Site(workspace)
    assert site.said(LOGIC, 1, NOW) is site.said(LOGIC, 1, NOW + timedelta(seconds=10))
    assert site.said(LOGIC, 1, NOW) is not site.said(LOGIC, 1, NOW + timedelta(minutes=6))
