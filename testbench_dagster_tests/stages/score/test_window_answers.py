"""What became of the docs of a window: told from its samples, packed, cached beside its rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.doc_answer import AnswerKind
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.windows import WindowAnswersRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score import windows as module
from testbench_dagster.stages.score.window_answers import IndexedDoc, pack, unpack, unpacked_values
from testbench_dagster.stages.score.windows import refresh_window_cache, window_docs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASK = "starter_logic"


@st.composite
def docs(draw: st.DrawFn) -> list[IndexedDoc]:
    ids = sorted(draw(st.sets(st.integers(0, 2**31), max_size=30)))
    values = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text("0123abc", max_size=16)
    return [
        IndexedDoc(
            doc_id,
            draw(st.sampled_from(AnswerKind)),
            draw(values),
            draw(st.booleans()),
            draw(st.integers(1, 9)),
            draw(st.integers(0, 9)),
            draw(st.integers(0, 99)),
            draw(st.integers(0, 2 * 10**12)),
            draw(st.none() | st.sampled_from(Fault)),
        )
        for doc_id in ids
    ]


@given(docs())
def test_docs_come_back_as_they_were_packed(given: list[IndexedDoc]) -> None:
    packed = pack(given)
    assert unpack(packed) == given
    assert unpacked_values(packed) == {d.doc_id: d.value for d in given if d.value is not None}


def test_a_doc_takes_a_few_bytes() -> None:
    many = [
        IndexedDoc(
            i * 7,
            AnswerKind.RIGHT if i * 31 % 5 else AnswerKind.WRONG,
            float(bool(i * 31 % 5)),
            False,
            1,
            1,
            i * 7919 % 12_000,
            1_767_225_600_000 + i * 337,
            None,
        )
        for i in range(12_000)
    ]
    assert len(pack(many)) < 5 * len(many)


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    settings = {"tasks": [{"name": TASK, "samples": "all"}], "sampling": {"max_age_days": 30}}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Facts(workspace)


def indexed(workspace: Workspace, registration: Registration, key: str = ALPHA) -> list[IndexedDoc]:
    chosen = [s for s in active_suppliers(workspace) if s.key == key]
    spec = workspace.spec(registration.task)
    [(_, found)] = window_docs(workspace, chosen, spec, registration)
    return list(found)


def test_kinds_follow_from_what_the_score_counts(facts: Facts) -> None:
    registration, now = facts.registration(TASK, n_docs=9), datetime.now(UTC)
    for doc, value in enumerate((1.0, 0.0, 0.5)):
        facts.score(registration, doc, value, at=now, truncated=doc == 2)
    facts.attempt(registration, 3, text="an answer without score", at=now)
    for number in range(1, 4):
        facts.attempt(registration, 4, Fault.SUPPLIER_TIMEOUT, number=number, at=now)
    found = {doc.doc_id: doc for doc in indexed(facts.workspace, registration)}
    assert {id_: doc.kind.value for id_, doc in found.items()} == {
        0: "right",
        1: "wrong",
        2: "graded",
        3: "unscored",
        4: "open",
    }
    assert [found[doc].value for doc in range(5)] == [1.0, 0.0, 0.5, None, None]
    assert [doc for doc in found if found[doc].truncated] == [2]
    assert found[4].fault is Fault.SUPPLIER_TIMEOUT
    assert found[3].fault is None


def test_cached_docs_are_those_of_the_facts_until_a_fact_comes(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration, now = facts.registration(TASK, n_docs=50), datetime.now(UTC)
    for doc in range(30):
        facts.score(registration, doc, float(doc % 3 > 0), at=now)
    from_facts = indexed(facts.workspace, registration)
    assert refresh_window_cache(facts.workspace, [ALPHA]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module, "samples_by_task", _not_read)
        assert indexed(facts.workspace, registration) == from_facts
        with pytest.raises(AssertionError, match="read from facts"):
            indexed(facts.workspace, registration, BETA)
    # rows that were cached by somebody else: the docs beside them are not those
    [record] = typed.find(facts.workspace.documents, WindowAnswersRecord)
    changed = WindowAnswersRecord(**{**_values(record), "since": record.since + 1, "docs": pack([])})
    typed.upsert(facts.workspace.documents, WindowAnswersRecord, [changed])
    assert indexed(facts.workspace, registration) == from_facts


def _not_read(*args: Any) -> Any:
    raise AssertionError("read from facts")


def _values(record: WindowAnswersRecord) -> dict[str, Any]:
    return {field.attribute: getattr(record, field.attribute) for field in record.fields}
