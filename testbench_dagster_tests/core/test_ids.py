"""Ids of documents: the SHA-256 of the canonical JSON, by whichever encoder it was written."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.ids import attempt_document_id, canonical_json, content_hash, document_id

#: Halves of surrogate pairs too, and numbers that take more than 64 bits.
PARTS = st.text() | st.text(st.characters(categories=["Cs"])) | st.integers() | st.booleans() | st.none()


@given(st.lists(PARTS | st.floats() | st.lists(PARTS), max_size=6))
@example(['\x00\x1f\x7f\u2028"\\/', "\ud800", 2**64, -(2**63)])
@example([1e16, 1e-7, float("inf")])
def test_an_id_is_the_hash_of_the_canonical_json_of_its_parts(parts: list[Any]) -> None:
    text = canonical_json(["kind", *parts]).encode("utf-8", "surrogatepass")
    assert document_id("kind", *parts) == hashlib.sha256(text).hexdigest()[:40]


def test_ids_stay_what_they_were() -> None:
    assert document_id("answer", "a", 1) == content_hash(["answer", "a", 1])[:40]
    assert document_id("fault", Fault.OK) == document_id("fault", "ok")
    assert (
        attempt_document_id("alpha@external", "p", 1, 0, 0, 2)
        == (hashlib.sha256(b'["attempt","alpha@external","p",1,0,0,2]').hexdigest()[:40])
    )


def test_parts_are_told_apart_by_their_types() -> None:
    assert len({document_id("kind", part) for part in ("1", 1, 1.0, True, None)}) == 5
