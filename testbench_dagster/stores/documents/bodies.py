"""Bodies of attempts outside the document store: the only module that knows of it.

A body that is large enough goes to a place of files, named by its SHA-256 and compressed; the attempt in the
document store says where. It is durable there before the attempt is stored, and whoever reads the attempt is
given the same bytes, checked by their hash. Where the place fails, the body stays in the document store: an
attempt is paid for, and never waits for a place.

A place holds one folder per document store, in it one per day on which attempts finished. Hence retention
needs no index of hashes and no list of what refers to what: a day goes as a whole when its attempts have,
with nothing to be undone after a kill. Equal bodies of one day are stored once: each is written anew, never
looked for first, so that nobody relies on a file that another process is about to remove.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from testbench_dagster.core.errors import BodyUnavailable, StoreError
from testbench_dagster.core.records.bodies import BodyPlaceRecord
from testbench_dagster.stores.documents.collections import ATTEMPTS, BODY_PLACES
from testbench_dagster.stores.documents.contract import (
    Collection,
    Document,
    DocumentStore,
    Group,
    Minutely,
    Where,
)
from testbench_dagster.stores.places import Place

T = TypeVar("T")
R = TypeVar("R")

_TOGETHER = 16  # files of a place that are read or written at once
_READ_DOCUMENTS = 64  # whose bodies are in memory at once
_READ_BYTES = 16 * 1024 * 1024  # and about the most bytes of these
#: Of gzip: 6 takes a quarter more time for 1 % less (benchmarks/bodies.py).
_LEVEL = 4
_NO_WRITES_S = 60.0  # after a failure: until then bodies stay in the document store
_NO_READS_S = 60.0  # after a place was found to be away: until then nobody waits for it again
_AWAY = 3  # failures to read from a place, none of them in between that went well, before it counts as away
#: A file that was written less than this ago is never removed: its attempt may be about to be stored.
_GRACE = timedelta(days=1)
_OURS = (".gz", ".partial")  # the latter of a writer that was killed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BodiesOutside:
    """Where bodies go: the URL of a place, and from how many bytes on."""

    place: str
    min_bytes: int


class DocumentsWithBodies:
    """:class:`~.contract.DocumentStore` over another one, with bodies of attempts in and outside of it.

    Without ``outside`` none go out; those that are there are read all the same.
    """

    def __init__(self, documents: DocumentStore, outside: BodiesOutside | None = None) -> None:
        self._documents = documents
        self._outside = outside
        self._places: dict[tuple[int, str], Place] = {}
        self._folder: str | None = None  # of this store, once it is known
        self._no_writes_until = 0.0
        self._failures: dict[str, int] = {}  # by place: to read from it, in a row
        #: By place that is away: until when nobody asks it, the file that could not be read, and why.
        self._away: dict[str, tuple[float, str, str]] = {}
        self._ahead: dict[tuple[str, str], Document] = {}  # by day and hash: where it was written ahead

    def __repr__(self) -> str:
        return repr(self._documents)

    # -- written -------------------------------------------------------------------------------------------

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        """Write bodies ahead, so that :meth:`put_new` of these attempts takes no longer than the store."""
        if collection.name == ATTEMPTS.name and self._outside is not None:
            self._ahead = self._written(self._bulky(documents))

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        """See the contract; bodies that go outside are there before the first attempt is stored."""
        return self._documents.put_new(collection, self._parted(collection, documents))

    def upsert(self, collection: Collection, documents: Iterable[Document]) -> int:
        """See the contract, and :meth:`put_new`."""
        return self._documents.upsert(collection, self._parted(collection, documents))

    def claim(
        self,
        collection: Collection,
        where: Where,
        changes: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
    ) -> Document | None:
        """See the contract."""
        claimed = self._documents.claim(collection, where, changes, sort=sort)
        return None if claimed is None else self._whole(collection, claimed)

    def amend(self, collection: Collection, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """See the contract."""
        return self._documents.amend(collection, changes)

    def purge(self, collection: Collection, where: Where) -> int:
        """See the contract. With attempts that finished before an instant go the bodies of the days before.

        Those that cannot be removed are left to the next time, and those in places of the past to people.
        """
        purged = self._documents.purge(collection, where)
        if collection.name == ATTEMPTS.name:
            finished = where.get("finished_at")
            before = finished.get("lt") if isinstance(finished, Mapping) else None
            if before is not None:
                self._remove_before(before)
        return purged

    def fill(self, collection: Collection, field: str, value: Any) -> int:
        """See the contract."""
        return self._documents.fill(collection, field, value)

    # -- read ----------------------------------------------------------------------------------------------

    def get(self, collection: Collection, id_: str) -> Document | None:
        """See the contract.

        Raises:
            BodyUnavailable: its body stands outside and cannot be read.
        """
        found = self._documents.get(collection, id_)
        return None if found is None else self._whole(collection, found)

    def find(
        self,
        collection: Collection,
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
        fields: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> Iterator[Document]:
        """See the contract. ``without`` bodies none is fetched.

        Raises:
            BodyUnavailable: the body of an attempt stands outside and cannot be read; those before it were
                yielded.
        """
        found = self._documents.find(
            collection, where, sort=sort, limit=limit, fields=fields, without=without
        )
        if collection.name != ATTEMPTS.name or fields is not None or "body" in without:
            return found
        return self._with_bodies(found)

    def rows(
        self,
        collection: Collection,
        fields: Sequence[str],
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """See the contract."""
        return self._documents.rows(collection, fields, where, sort=sort, limit=limit)

    def count(self, collection: Collection, where: Where | None = None) -> int:
        """See the contract."""
        return self._documents.count(collection, where)

    def group(self, collection: Collection, group: Group, where: Where | None = None) -> list[Document]:
        """See the contract."""
        return self._documents.group(collection, group, where)

    def minutely(
        self, collection: Collection, minutely: Minutely, where: Where | None = None
    ) -> list[tuple[Any, int, int, int]]:
        """See the contract."""
        return self._documents.minutely(collection, minutely, where)

    def reindex(self, collection: Collection, say: Callable[[str], None]) -> None:
        """See the contract."""
        self._documents.reindex(collection, say)

    def schema_version(self) -> int | None:
        """See the contract."""
        return self._documents.schema_version()

    def move_schema(self, before: int, after: int) -> bool:
        """See the contract."""
        return self._documents.move_schema(before, after)

    def size(self, name: str) -> int:
        """See the contract."""
        return self._documents.size(name)

    def close(self) -> None:
        """See the contract."""
        self._documents.close()

    # -- out -----------------------------------------------------------------------------------------------

    def _parted(self, collection: Collection, documents: Iterable[Document]) -> Iterable[Document]:
        """The documents as they are stored here; bodies that are not in them stand outside by then."""
        if collection.name != ATTEMPTS.name:
            return documents
        # what was read elsewhere (a bundle) may claim that its body is somewhere: that is for us to say
        own = [_without_address(document) for document in documents]
        if self._outside is None:
            return own
        ahead, self._ahead = self._ahead, {}
        bodies = self._bulky(own)
        written = ahead | self._written({key: b for key, b in bodies.items() if key not in ahead})
        return [self._without_body(document, written) for document in own] if written else own

    def _bulky(self, documents: Iterable[Document]) -> dict[tuple[str, str], bytes]:
        """The bodies that are to go outside, each once, by day and hash."""
        if self._outside is None:
            return {}
        return {
            _key(document): document["body"]
            for document in documents
            if len(document.get("body", b"")) >= self._outside.min_bytes
        }

    def _without_body(self, document: Document, written: Mapping[tuple[str, str], Document]) -> Document:
        if self._outside is None or len(document.get("body", b"")) < self._outside.min_bytes:
            return document
        address = written.get(_key(document))
        return document if address is None else _replaced(document, "body", "body_outside", address)

    def _written(self, bodies: Mapping[tuple[str, str], bytes]) -> dict[tuple[str, str], Document]:
        """Write bodies; return by key where they are, of those that now stand there durably."""
        if self._outside is None or not bodies or self._pausing:
            return {}
        url = self._outside.place
        folder = self._own_folder(url)
        kept = f"{url.rstrip('/')}/{folder}"

        def write(item: tuple[tuple[str, str], bytes]) -> tuple[tuple[str, str], Document] | None:
            (day, digest), body = item
            if self._pausing:
                return None
            try:
                compressed = gzip.compress(body, _LEVEL, mtime=0)
                self._place(url).store(f"{folder}/{_name(day, digest)}", compressed)
            except StoreError as error:
                self._pause(error)
                return None
            return item[0], {"place": kept, "sha256": digest, "bytes": len(body)}

        first, *others = bodies.items()
        # one alone: a place that is down keeps nobody waiting more than once
        done = [write(first), *_at_once(write, others)]
        return dict(one for one in done if one is not None)

    @property
    def _pausing(self) -> bool:
        return time.monotonic() < self._no_writes_until

    def _pause(self, error: StoreError) -> None:
        if not self._pausing:
            _log.warning(
                "bodies stay in the document store for now, and are tried again in %d s: %s",
                _NO_WRITES_S,
                error,
            )
        self._no_writes_until = time.monotonic() + _NO_WRITES_S

    def _own_folder(self, url: str) -> str:
        """The folder of this store in a place, noted before anything is written there."""
        if self._folder is None:
            found = self._documents.get(BODY_PLACES, url)
            if found is None:
                drawn = BodyPlaceRecord(id=url, folder=secrets.token_hex(4), since=datetime.now(UTC))
                self._documents.put_new(BODY_PLACES, [drawn.to_document()])
                found = self._documents.get(BODY_PLACES, url) or drawn.to_document()
            self._folder = str(found["folder"])
        return self._folder

    def _place(self, url: str) -> Place:
        key = os.getpid(), url  # clients of such stores are not to be used after a fork
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = Place(url)
        return found

    # -- and in --------------------------------------------------------------------------------------------

    def _whole(self, collection: Collection, document: Document) -> Document:
        return document if collection.name != ATTEMPTS.name else self._with_body(document)

    def _with_bodies(self, found: Iterator[Document]) -> Iterator[Document]:
        """The documents with their bodies, which are fetched some at a time."""
        with closing(_closable(found)) as documents:
            for batch in _batches(documents):
                if not any(_address(document) for document in batch):
                    yield from batch
                    continue
                for document in _at_once(self._or_error, batch):
                    if isinstance(document, BodyUnavailable):
                        raise document
                    yield document

    def _or_error(self, document: Document) -> Document | BodyUnavailable:
        try:
            return self._with_body(document)
        except BodyUnavailable as error:
            return error

    def _with_body(self, document: Document) -> Document:
        """An attempt as it came, with its body.

        Raises:
            BodyUnavailable: it stands outside and cannot be read.
        """
        address = _address(document)
        if address is None:
            return document
        digest = str(address["sha256"])
        name = _name(_day(document["finished_at"]), digest)
        try:
            data, where = self._fetched(str(address["place"]), name)
        except StoreError as error:
            raise BodyUnavailable(f"attempts[{document['_id']}]: {error}") from None
        if data is None:
            raise BodyUnavailable(
                f"attempts[{document['_id']}]: its body is not at {where}: restore it from a backup of that "
                "place, or name the place that it was moved to as `bodies`"
            )
        body = _expanded(data, int(address["bytes"]))
        if body is None or hashlib.sha256(body).hexdigest() != digest:
            raise BodyUnavailable(
                f"attempts[{document['_id']}]: its body at {where} is damaged, for it has another SHA-256: "
                "restore it from a backup of that place"
            )
        return _replaced(document, "body_outside", "body", body)

    def _fetched(self, place: str, name: str) -> tuple[bytes | None, str]:
        """A file, where it was written or else in the place of today; and where it was looked for first."""
        where = f"{place}/{name}"
        places = [place]
        if self._outside is not None:
            moved = f"{self._outside.place.rstrip('/')}/{place.rpartition('/')[2]}"
            places += [moved] if moved != place else []
        first: StoreError | None = None
        for one in places:
            try:
                data = self._read(one, name)
            except StoreError as error:
                first = first or error
                continue
            if data is not None:
                return data, f"{one}/{name}"
        if first is not None:
            raise first
        return None, where

    def _read(self, place: str, name: str) -> bytes | None:
        until, failed, why = self._away.get(place, (0.0, "", ""))
        if time.monotonic() < until:
            raise StoreError(why.replace(failed, name))
        try:
            data = self._place(place).read(name)
        except StoreError as error:
            self._failures[place] = self._failures.get(place, 0) + 1
            if self._failures[place] >= _AWAY:
                self._away[place] = time.monotonic() + _NO_READS_S, name, str(error)
            raise
        self._failures[place] = 0
        return data

    # -- gone ----------------------------------------------------------------------------------------------

    def _remove_before(self, before: datetime) -> None:
        """Remove the bodies of the days before that of an instant, or of the oldest attempt that is left."""
        last = _day(before)
        left = self._documents.rows(
            ATTEMPTS, ["finished_at"], {"finished_at": {"lt": before}}, sort=[("finished_at", 1)], limit=1
        )
        for (oldest,) in left:  # of a purge that named more than the time
            last = _day(oldest)
        if self._outside is None:
            return
        # Those of other places may have been copied to this one. There nothing is removed: a copy of a store
        # that names no place of its own would remove what the store needs.
        place = self._place(self._outside.place)
        for folder in sorted({str(known["folder"]) for known in self._documents.find(BODY_PLACES)}):
            with _left_to_the_next_time():
                for day in place.folders(folder):
                    if _is_day(day) and day < last:
                        with _left_to_the_next_time():
                            self._remove_day(place, f"{folder}/{day}")

    def _remove_day(self, place: Place, day: str) -> None:
        until = datetime.now(UTC) - _GRACE
        for part in place.folders(day):
            inside = f"{day}/{part}"
            old = [name for name, written in place.written(inside).items() if written < until]
            place.remove_all([f"{inside}/{name}" for name in old if name.endswith(_OURS)])
        place.remove_folder(day)


@contextmanager
def _left_to_the_next_time() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        _log.warning("bodies of attempts that are gone are left to the next time: %s", error)


def _at_once(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What comes of work on items, in their order, some of them at once."""
    if len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(min(_TOGETHER, len(items)), thread_name_prefix="testbench-bodies") as pool:
        yield from pool.map(work, items)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Cut a stream so that the bodies of a batch, in and outside, fit into memory."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        address = _address(document)
        batch.append(document)
        size += len(document.get("body", b"")) if address is None else int(address["bytes"])
        if len(batch) == _READ_DOCUMENTS or size >= _READ_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _closable(found: Iterator[Document]) -> Any:
    """The stream itself where it can be closed, which ends what it holds open; else a generator over it."""
    return found if hasattr(found, "close") else (document for document in found)


def _address(document: Document) -> Mapping[str, Any] | None:
    """Where the body of a stored attempt is, None where it is in it."""
    return None if "body" in document else document.get("body_outside")


def _without_address(document: Document) -> Document:
    if "body_outside" not in document:
        return document
    return {name: value for name, value in document.items() if name != "body_outside"}


def _replaced(document: Document, old: str, new: str, value: Any) -> Document:
    """The document with another field in the place of one, so that fields keep their order."""
    return {(new if name == old else name): (value if name == old else one) for name, one in document.items()}


def _key(document: Document) -> tuple[str, str]:
    return _day(document["finished_at"]), hashlib.sha256(document["body"]).hexdigest()


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _is_day(name: str) -> bool:
    try:
        return datetime.strptime(name, "%Y-%m-%d").date().isoformat() == name
    except ValueError:
        return False


def _name(day: str, digest: str) -> str:
    return f"{day}/{digest[:2]}/{digest}.gz"


def _expanded(data: bytes, size: int) -> bytes | None:
    """What was compressed, None where that is not ``size`` bytes; no more is ever made of it."""
    expanding = zlib.decompressobj(wbits=31)  # of gzip
    try:
        body = expanding.decompress(data, size + 1)
    except zlib.error:
        return None
    return body if len(body) == size and expanding.eof else None
