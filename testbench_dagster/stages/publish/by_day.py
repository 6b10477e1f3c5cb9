"""Files of facts by the day they are of, written once and kept up to date, for DuckDB, Polars and the like.

A place holds ``attempts/day=2026-12-01/attempts.parquet`` and so on: one file for each collection and day in
UTC with a fact, in the layout that is called Hive's. Each is replaced whole, so that at any time a fact is in
one file at most; and never by one with fewer rows, which is what retention leaves of old days.

``_manifest.json``, written last, says what is there and since when facts may have come that are not. An
export goes on from it:

* days not written yet, and those of the last :data:`LATE` before the last export began: a fact is dated by
  the clock of who made it, and stored a little later;
* days of facts that came later still, of collections that say when a fact was stored: a score is dated by its
  answer, and may be made days afterwards.

Killed at any time and run again, it writes what was not complete once more.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.declaring import Record
from testbench_dagster.core.records.identity import ChangeRecord
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord, ScoresOfHour
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.stages.publish.export import write_documents
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.stores.places import Place

#: To go on from where the last export ended.
LAST: Literal["last"] = "last"
#: Facts are stored within so long after their time, clocks of hosts that differ included. A writer holds them
#: for a second, and while the store is away.
LATE = timedelta(hours=6)
MANIFEST = "_manifest.json"
_VERSION = 1
_DAY = timedelta(days=1)


class Dated(NamedTuple):
    """A collection that grows: by which field its facts are of a day, and who counts those stored since."""

    of: type[Record]
    at: str
    stored_since: Callable[[DocumentStore, datetime], set[date]] | None = None

    @property
    def name(self) -> str:
        """Name of the collection, its folder and its files."""
        return self.of.collection.name

    def file(self, day: date) -> str:
        """The file of a day, from the place on."""
        return f"{self.name}/day={day.isoformat()}/{self.name}.parquet"


def _scored_since(documents: DocumentStore, since: datetime) -> set[date]:
    hours = typed.group(documents, ScoresOfHour, {"scored_at": {"gte": since}})
    return {row.answered_at.date() for row in hours}


#: What is exported. Every field ``at`` begins an index of its collection.
DATED = (
    Dated(PromptRecord, "created_at"),
    Dated(AttemptRecord, "finished_at"),
    Dated(ScoreRecord, "answered_at", _scored_since),
    Dated(ServiceProbeRecord, "finished_at"),
    Dated(ChangeRecord, "detected_at"),
)


@dataclass
class _Manifest:
    """What a place holds, and what it may lack.

    ``first`` is the earliest day that was wanted, None for all. Days up to ``through`` hold all facts stored
    before ``read_at``, as far as :data:`LATE` is enough; None while none is known to.
    """

    read_at: datetime
    first: date | None = None
    through: date | None = None
    rows: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def due(self) -> date | None:
        """The day from which on there may be facts that are not in the place; None for all."""
        if self.through is None:
            return self.first
        return min((self.read_at - LATE).date(), self.through + _DAY)

    def to_bytes(self) -> bytes:
        """As it is stored: JSON."""
        days = {name: dict(sorted(of.items())) for name, of in sorted(self.rows.items())}
        known = {
            "version": _VERSION,
            "read_at": self.read_at.isoformat(),
            "first": self.first and self.first.isoformat(),
            "through": self.through and self.through.isoformat(),
            "rows": days,
        }
        return json.dumps(known, indent=1).encode()


@dataclass(frozen=True)
class ExportedByDay:
    """The files written with their rows, and those that were kept since the store has fewer rows now."""

    files: Mapping[str, int]
    kept: Mapping[str, int]


def export_by_day(
    documents: DocumentStore,
    where: str | Path,
    since: date | Literal["last"] | None = None,
    *,
    now: datetime | None = None,
) -> ExportedByDay:
    """Write the facts of days to a place; see the module.

    Args:
        documents: where they are.
        where: the place, a path or a URL that fsspec knows.
        since: the first day (UTC) to write; :data:`LAST` for what the last export to this place lacks, all
            for a first one; None for all. What earlier exports lack is written in any case.
        now: the present.

    Raises:
        ConfigError: the place is a URL that holds a password, or names no place.
        StoreError: the place cannot be read or written, or what stands there was written by another program.
        TestbenchError: another process of this machine writes there.
    """
    place = Place(where)
    with place.alone(f"another process exports to {place.shown}; wait for it"):
        return _Export(documents, place, _read_manifest(place), now or datetime.now(UTC)).run(since)


class _Export:
    """One run."""

    def __init__(
        self, documents: DocumentStore, place: Place, known: _Manifest | None, now: datetime
    ) -> None:
        self._documents, self._place, self._known, self._now = documents, place, known, now
        self._files: dict[str, int] = {}
        self._unchanged: dict[str, int] = {}

    def run(self, since: date | Literal["last"] | None) -> ExportedByDay:
        start, manifest = self._begin(since)
        files = heapq.merge(*(self._days(dated, start, manifest.first) for dated in DATED))
        for day, of_day in groupby(files, key=itemgetter(0)):
            for _, number in of_day:
                self._write(DATED[number], day, manifest)
            if start is None or day >= start:  # which all before it are written
                manifest.through = max(filter(None, (manifest.through, min(day, self._now.date()))))
            self._save(manifest)
        manifest.read_at, manifest.through = self._now, self._now.date()
        self._save(manifest)
        return ExportedByDay(self._files, self._unchanged)

    def _begin(self, since: date | Literal["last"] | None) -> tuple[date | None, _Manifest]:
        """The first day of which all days are written, and what the place will have been told of."""
        wanted = None if since == LAST else since
        known = self._known
        if known is None:
            return wanted, _Manifest(self._now, first=wanted)
        # a clock that was ahead when the last export began would hide what came since
        known.read_at = min(known.read_at, self._now)
        due = known.due
        if since == LAST:
            return due, known
        start = None if wanted is None or due is None else min(wanted, due)
        if known.first is not None and (start is None or start < known.first):
            known.first, known.through = start, None
        return start, known

    def _days(self, dated: Dated, start: date | None, first: date | None) -> Iterator[tuple[date, int]]:
        """The days to write of a collection, ascending, with its number."""
        number = DATED.index(dated)
        if self._known is not None and dated.stored_since is not None and start is not None:
            came = dated.stored_since(self._documents, self._known.read_at - LATE)
            late = (day for day in came if day < start and (first is None or day >= first))
            yield from ((day, number) for day in sorted(late))
        found = start or date.min
        while True:
            later = {dated.at: {"gte": _midnight(found)}}
            least = typed.least(self._documents, dated.of, dated.at, later)
            if least is None:
                return
            yield least.date(), number
            if least.date() == date.max:
                return
            found = least.date() + _DAY

    def _write(self, dated: Dated, day: date, manifest: _Manifest) -> None:
        """Write a file, unless it would have fewer rows than the one that is there."""
        name, rows = dated.file(day), manifest.rows.setdefault(dated.name, {})
        before = rows.get(day.isoformat(), 0)
        until = {} if day == date.max else {"lt": _midnight(day + _DAY)}
        where = {dated.at: {"gte": _midnight(day), **until}}
        self._place.clear(name)
        with suppress(_FewerError), self._place.writing(name) as path:
            found = typed.whole(self._documents, dated.of, where, sort=[(dated.at, 1)])
            written = write_documents(path, dated.of, found)
            if written < before:
                self._unchanged[self._place.file(name)] = before
                raise _FewerError
            rows[day.isoformat()] = written
            self._files[self._place.file(name)] = written

    def _save(self, manifest: _Manifest) -> None:
        self._place.clear(MANIFEST)
        with self._place.writing(MANIFEST) as path:
            path.write_bytes(manifest.to_bytes())


class _FewerError(Exception):
    """A day has fewer facts in the store than in its file."""


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _read_manifest(place: Place) -> _Manifest | None:
    """What the last export said of the place; None where there was none."""
    text = place.read(MANIFEST)
    if text is None:
        return None
    file = place.file(MANIFEST)
    wrong = f"{file} is not what testbench export writes; choose another destination, or remove it"
    try:
        known = json.loads(text)
        version = known["version"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(wrong) from None
    if version != _VERSION:
        raise StoreError(
            f"{file} has version {version!r}, this program writes {_VERSION}; upgrade it, or choose another "
            "destination"
        )
    try:
        return _Manifest(
            datetime.fromisoformat(known["read_at"]),
            known["first"] and date.fromisoformat(known["first"]),
            known["through"] and date.fromisoformat(known["through"]),
            {name: {day: int(n) for day, n in of.items()} for name, of in known["rows"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(wrong) from None
