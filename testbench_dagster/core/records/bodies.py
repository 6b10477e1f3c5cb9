"""Which places outside the document store hold bodies of its attempts."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.declaring import FACT, Record, content, key, queryable, record


@record("body_places", one_per="place that bodies were written to", kind=FACT)
class BodyPlaceRecord(Record):
    """A place outside the document store that holds bodies of its attempts, or held some."""

    id: str = key("URL of the place, as `bodies` names it")
    folder: str = content("folder in it that belongs to this store alone")
    since: datetime = queryable("when the first body went there")
