"""Signatures: what the hashes that signature tasks score stand for."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import FACT, Record, content, key, queryable, record, view


@record("signatures", one_per="distinct signature of a task", kind=FACT, indexes=(("task",),))
class SignatureRecord(Record):
    """What a signature stands for, and who showed it first."""

    id: str = key("`task:signature`")
    signature: str = content("the hash")
    task: str = queryable("the signature task")
    first_seen_at: datetime = queryable("when it was first answered")
    supplier: str = queryable("key of the supplier that answered so")
    attempt_id: str = content("the attempt that brought it")
    body: str = content("what was hashed, or its beginning")
    body_chars: int = content("how many characters that was in all")


@view(SignatureRecord)
class SignatureId(NamedTuple):
    """That a signature is known."""

    id: str
