"""The roster: which suppliers there are, since when, what changed, who is asked now.

Its suppliers are those of ``testbench.yaml``, those the supplier sources list, and those of the services of
Pocket Network. One that leaves keeps its
document and its history; only its status changes. Every write is conditional on the version of the document
it was made from, so any number of processes may refresh at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.config import SERVICE_SOURCE, Settings, SupplierConfig
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.relay import Api
from testbench_dagster.core.supplier import ACTIVE, CONFIG_SOURCE, LEFT, Supplier
from testbench_dagster.stages.discover.heights import note_height
from testbench_dagster.stages.discover.sessions import note_sessions
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Document, DocumentStore, Group
from testbench_dagster.stores.documents.collections import PLANS, SUPPLIERS
from testbench_dagster.transports.sources import (
    Entry,
    Listing,
    ServiceListing,
    Source,
    SourceError,
    parse_entries,
    read_sources,
    source_of,
)

#: Seconds all sources together may take.
READ_WITHIN_S = 60.0
#: Events kept of one supplier, the newest: a source that lets one come and go may not fill the document.
HISTORY_EVENTS = 200

_REACHED_BY = ("transport", "base_url", "rpc_type", "api", "model")
#: Changes without being an event: it moves with every block, and how a supplier answers does not with it.
_QUIET = ("stake_upokt", "host", "public_key")
_READ = (
    "_id", "address", "service", "base_url", "api", "model", "transport", "rpc_type", "stake_upokt", "host",
    "source", "status", "joined_at", "left_at", "cut_at", "echo_logprobs", "probed_at",
)  # fmt: skip
_LEARNED = ("joined_at", "cut_at", "echo_logprobs", "probed_at")  # of a supplier, whatever its source
_WRITES_AT_ONCE = 8
_ATTEMPTS = 20  # of writing one document that others change too
#: A listing may be older than what another process wrote meanwhile, by no more than it takes to read it. A
#: document that claims to be still newer was written by a machine whose clock is wrong.
_OVERLAP = timedelta(minutes=2)


@dataclass(frozen=True)
class RosterReport:
    """What a refresh found: keys of the active suppliers, and of those something happened to.

    ``joined`` are new, ``returned`` had left, ``changed`` have another endpoint, API, model or source.
    ``problems`` tells what could not be used, by source, application or supplier key, ``warnings`` what works
    but should not stay so. ``heights`` are the newest known block heights by service, as far as this refresh
    was told one.
    """

    active: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)

    @property
    def anything_new(self) -> bool:
        """Whether a supplier joined, left, changed or returned."""
        return bool(self.joined or self.left or self.changed or self.returned)


# ------------------------------------------------------------------------------------------------ reading


def active_suppliers(workspace: Workspace) -> list[Supplier]:
    """Who is asked now, in the order of :func:`known_suppliers`; one read of the store."""
    return [supplier for supplier in known_suppliers(workspace) if supplier.left_at is None]


def known_suppliers(workspace: Workspace) -> list[Supplier]:
    """All suppliers of the roster, those that left included; one read of the store.

    First the configured ones in configured order, whether the roster was refreshed since or not, then the
    active ones of other sources, then those that left, by when they joined and by key. A supplier whose
    source is no longer configured counts as having left.
    """
    settings = workspace.config.settings
    origins = {label: _Origin.of(settings, label) for label in source_labels(settings)}
    documents = {d["_id"]: d for d in workspace.documents.find(SUPPLIERS, fields=_READ)}
    known = [configured_supplier(config, documents.pop(config.key, None)) for config in settings.suppliers]
    now = datetime.now(UTC)
    others = [_listed(d, origins.get(d["source"]), now) for d in documents.values() if d["base_url"]]
    return known + sorted(others, key=lambda s: (s.left_at is not None, s.joined_at or now, s.key))


def active_apis(workspace: Workspace) -> set[Api]:
    """The request forms of :func:`active_suppliers`, without reading them one by one."""
    settings = workspace.config.settings
    labels = set(source_labels(settings))
    rows = workspace.documents.group(SUPPLIERS, Group(by=["source", "api"]), {"status": ACTIVE})
    return {s.api for s in settings.suppliers} | {r["api"] for r in rows if r["source"] in labels}


def retirable(workspace: Workspace, now: datetime) -> list[str]:
    """Keys of suppliers that left at least ``roster.grace_hours`` ago: their partitions may go."""
    until = now - timedelta(hours=workspace.config.settings.roster.grace_hours)
    where = {"status": LEFT, "left_at": {"lte": until}}
    return [d["_id"] for d in workspace.documents.find(SUPPLIERS, where, sort=[("_id", 1)], fields=["_id"])]


def no_suppliers_text(workspace: Workspace) -> str:
    """What to tell where nobody can be asked, with the remedy."""
    settings = workspace.config.settings
    named = [name for name in ("supplier_sources", "services") if getattr(settings, name)]
    if named:
        return (
            f"{workspace.config.path}: no supplier is active; suppliers is empty and the "
            f"{' and '.join(named)} list none that can be used"
        )
    return (
        f"{workspace.config.path}: suppliers is empty and there are no supplier_sources; add at least one "
        "supplier, or a source or service that lists some"
    )


def source_labels(settings: Settings) -> list[str]:
    """What the roster calls the configured sources, the first of which counts for a supplier of several."""
    listed = [source.label for source in settings.supplier_sources]
    return [*listed, *(f"{SERVICE_SOURCE}{name}" for name in settings.services)]


@dataclass(frozen=True)
class _Origin:
    """What the configuration of now says of all suppliers of a source."""

    trusted: bool
    api_key_env: str | None = None
    bounds: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, label: str) -> _Origin:
        service = settings.service_of(label)
        if service is not None:
            return cls(service.allow_private_networks, bounds=service.relays.overrides())
        source = next(source for source in settings.supplier_sources if source.label == label)
        return cls(source.allow_private_networks, source.api_key_env)


def configured_supplier(config: SupplierConfig, document: Document | None = None) -> Supplier:
    """A supplier of testbench.yaml, with what its document in the roster knows of it."""
    known = {name: document[name] for name in _LEARNED} if document else {}
    return Supplier(
        address=config.address,
        service=config.service,
        base_url=config.base_url,
        api=config.api,
        model=config.model,
        api_key_env=config.api_key_env,
        bounds=config.bounds,
        **known,
    )


def _listed(document: Document, origin: _Origin | None, now: datetime) -> Supplier:
    active = document["status"] == ACTIVE and origin is not None
    return Supplier(
        address=document["address"],
        service=document["service"],
        base_url=document["base_url"],
        api=document["api"],
        model=document["model"],
        api_key_env=origin.api_key_env if origin else None,
        bounds=origin.bounds if origin else {},
        source=document["source"] or CONFIG_SOURCE,
        trusted=origin is not None and origin.trusted,
        status=ACTIVE if active else LEFT,
        left_at=None if active else document["left_at"] or now,
        transport=document["transport"] or "direct",
        rpc_type=document["rpc_type"],
        stake_upokt=document["stake_upokt"],
        host=document["host"],
        **{name: document[name] for name in _LEARNED},
    )


def remember_echo_logprobs(workspace: Workspace, key: str, supported: bool) -> None:
    """Record what a capability probe found, leaving alone what others change meanwhile."""
    changes = {"echo_logprobs": supported, "probed_at": datetime.now(UTC)}
    workspace.documents.claim(SUPPLIERS, {"_id": key}, changes)


def cut_windows(workspace: Workspace, key: str, at: datetime, reason: str) -> bool:
    """Note that a supplier's model changed: only what it answers after ``at`` counts from now on.

    An instant before the known cut changes nothing. Its kept plan is looked at now.

    Returns:
        Whether the cut was moved.

    Raises:
        StoreError: other processes kept changing the supplier's document.
    """
    documents = workspace.documents
    for _ in range(_ATTEMPTS):
        before = documents.get(SUPPLIERS, key)
        if before is None or (before["cut_at"] is not None and before["cut_at"] >= at):
            return False
        noted_at = datetime.now(UTC)
        event = {"at": noted_at, "event": "cut", "cut_at": at, "reason": reason}
        version = (before.get("version") or 0) + 1
        changes = {"cut_at": at, "version": version, **_recorded(before, event)}
        if documents.claim(SUPPLIERS, {"_id": key, "version": before.get("version")}, changes) is not None:
            _plan_at_once(documents, [key], noted_at)
            return True
    raise StoreError(f"the cut of {key!r} could not be noted: other processes kept changing it; run again")


# --------------------------------------------------------------------------------------------- refreshing


def refresh_roster(
    workspace: Workspace, now: datetime | None = None, deadline_s: float = READ_WITHIN_S
) -> RosterReport:
    """Bring the roster up to date with the configuration and the supplier sources.

    Joins, leaves, returns and changes are recorded in each supplier's history with time, and with the block
    height where its source told one. A changed model sets ``cut_at``. A source that cannot be read retires
    nobody, and a supplier whose entry cannot be used stays as it was; both are problems of the report.

    Args:
        workspace: the installation.
        now: the instant of the refresh, timezone-aware; the present by default.
        deadline_s: seconds that reading all sources may take.

    Raises:
        StoreError: the document store failed.
    """
    now = now or datetime.now(UTC)
    found = _read(workspace, deadline_s)
    report = RosterReport(problems=found.problems, warnings=found.warnings)
    for service, listing in found.listings.items():
        if listing.height is not None:
            sessions, blocks = listing.sessions, listing.blocks_per_session
            note_sessions(workspace, service, sessions, listing.height, blocks, now)
    for service, height in found.heights.items():
        report.heights[service] = note_height(workspace.documents, service, height, now)
    _Recorder(workspace.documents, found, report, now).record()
    _plan_at_once(workspace.documents, [*report.joined, *report.returned, *report.changed], now)
    report.active.extend(supplier.key for supplier in active_suppliers(workspace))
    return report


@dataclass
class _Found:
    """What the configuration and the sources say, by supplier key and by source."""

    suppliers: dict[str, tuple[Entry, str]] = field(default_factory=dict)  # key → entry, its source
    unread: set[str] = field(default_factory=set)  # sources that told nothing
    broken: dict[str, Collection[str]] = field(default_factory=dict)  # source → keys of entries it garbled
    listings: dict[str, ServiceListing] = field(default_factory=dict)  # service → what the chain tells
    problems: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)  # by service
    told: dict[str, int] = field(default_factory=dict)  # height by source

    def take(
        self,
        label: str,
        entries: Iterable[Entry],
        broken: Collection[str],
        problems: Mapping[str, str],
        heights: Mapping[str, int],
    ) -> None:
        """Take what a source lists, where no earlier one lists the same."""
        self.problems.update(problems)
        self.broken[label] = broken
        for entry in entries:
            key = entry.config.key
            first = self.suppliers.setdefault(key, (entry, label))[1]
            if first != label:
                self.problems[key] = (
                    f"{label}: supplier {key} is listed by {first} too, which counts; remove one"
                )
        for service, height in heights.items():
            self.heights[service] = max(height, self.heights.get(service, 0))


def _read(workspace: Workspace, deadline_s: float) -> _Found:
    config = workspace.config
    found = _Found(suppliers={s.key: (Entry(s), CONFIG_SOURCE) for s in config.settings.suppliers})
    settings = {source.label: source for source in config.settings.supplier_sources}
    sources: dict[str, Source] = {label: source_of(s, config.base) for label, s in settings.items()}
    for name in config.settings.services:
        from testbench_dagster.transports.pocket.discovery import (
            service_source,
        )  # only where there are services

        sources[f"{SERVICE_SOURCE}{name}"] = service_source(config, name, _known(workspace, name))
    for label, listing in read_sources(sources, deadline_s).items():
        if isinstance(listing, SourceError):
            found.unread.add(label)
            found.problems[label] = f"{label}: {listing}; its suppliers stay as they were"
        elif isinstance(listing, ServiceListing):
            name = label.removeprefix(SERVICE_SOURCE)
            found.listings[name] = listing
            found.warnings.update(listing.warnings)
            heights = {} if listing.height is None else {name: listing.height}
            found.take(label, listing.entries, listing.broken, listing.problems, heights)
        else:
            entries = parse_entries(listing, settings[label])
            services = {supplier.service for supplier in entries.suppliers.values()}
            heights = {} if listing.height is None else dict.fromkeys(services, listing.height)
            found.take(
                label, map(Entry, entries.suppliers.values()), entries.broken, entries.problems, heights
            )
        if isinstance(listing, Listing) and listing.height is not None:
            found.told[label] = listing.height
    return found


def _known(workspace: Workspace, service: str) -> dict[str, str | None]:
    """Operators of a service whom the roster has as active, with their public keys as far as known."""
    where = {"source": f"{SERVICE_SOURCE}{service}", "status": ACTIVE}
    rows = workspace.documents.find(SUPPLIERS, where, fields=["address", "public_key"])
    return {row["address"]: row["public_key"] for row in rows}


class _Recorder:
    """Writes what was found into the roster's documents and notes in the report what it did."""

    def __init__(self, documents: DocumentStore, found: _Found, report: RosterReport, now: datetime) -> None:
        self._documents = documents
        self._found = found
        self._report = report
        self._now = now
        self._refresh = secrets.token_hex(4)  # stands in the events this refresh records

    def record(self) -> None:
        """Write until every document agrees with what was found, or others know better.

        Raises:
            StoreError: other processes changed the same documents again and again.
        """
        only: set[str] | None = None  # documents that another process was faster with
        for _ in range(_ATTEMPTS):
            where = None if only is None else {"_id": {"in": only}}
            known = {d["_id"]: d for d in self._documents.find(SUPPLIERS, where)}
            missed = self._insert(known, only) | self._update(known)
            if not missed:
                return
            only = missed
        raise StoreError(
            f"the roster could not be refreshed: other processes kept changing {sorted(only or ())[0]!r}; "
            "refresh again"
        )

    def _insert(self, known: Mapping[str, Document], only: set[str] | None) -> set[str]:
        """Add who is new; return the keys that another process added first."""
        new = [
            self._document(key, entry, source)
            for key, (entry, source) in self._found.suppliers.items()
            if key not in known and (only is None or key in only)
        ]
        keys = {d["_id"] for d in new}
        if self._documents.put_new(SUPPLIERS, new) == len(new):
            self._report.joined.extend(d["_id"] for d in new)
            return set()
        stored = self._documents.find(SUPPLIERS, {"_id": {"in": keys}})
        ours = {d["_id"] for d in stored if d["history"][0].get("refresh") == self._refresh}
        self._report.joined.extend(d["_id"] for d in new if d["_id"] in ours)
        return keys - ours

    def _update(self, known: Mapping[str, Document]) -> set[str]:
        """Change who is not as found; return the keys that another process changed first."""
        updates = [
            (key, before.get("version"), *update)
            for key, before in known.items()
            if (update := self._change(key, before)) is not None
        ]

        def write(update: tuple[str, int | None, str, Document]) -> bool:
            key, version, _, changes = update
            where = {"_id": key, "version": version}
            changes = {**changes, "version": (version or 0) + 1}
            return self._documents.claim(SUPPLIERS, where, changes) is not None

        missed = set()
        told = {
            "left": self._report.left,
            "returned": self._report.returned,
            "changed": self._report.changed,
            "noted": [],  # no event of the supplier's
        }
        # a replicated store takes milliseconds to confirm each, but many at once
        with ThreadPoolExecutor(_WRITES_AT_ONCE) as pool:
            for (key, _, event, _), written in zip(updates, pool.map(write, updates), strict=True):
                if written:
                    told[event].append(key)
                else:
                    missed.add(key)
        return missed

    def _document(self, key: str, entry: Entry, source: str) -> Document:
        supplier, facts = entry.config, _facts(entry, source)
        return {
            "_id": key,
            "address": supplier.address,
            "service": supplier.service,
            "status": ACTIVE,
            "joined_at": self._now,
            "left_at": None,
            "cut_at": None,
            "echo_logprobs": None,
            "probed_at": None,
            "updated_at": self._now,
            "version": 1,
            "history": [self._event("joined", source, facts)],
            **facts,
            **_quiet(entry),
        }

    def _change(self, key: str, before: Document) -> tuple[str, Document] | None:
        """What has to happen to a known supplier: the event and the changed fields, or None."""
        source = before.get("source") or CONFIG_SOURCE
        if self._now < before.get("updated_at", self._now) <= self._now + _OVERLAP:
            return None  # another process read the sources later than this one
        # who was listed by a source that fails now, or garbles the entry, does not become another's meanwhile
        unclear = source in self._found.unread or key in self._found.broken.get(source, ())
        entry = self._found.suppliers.get(key)
        if unclear and (entry is None or entry[1] != CONFIG_SOURCE):
            return None
        if entry is None:
            if before["status"] == LEFT:
                return None
            return "left", {
                "status": LEFT,
                "left_at": self._now,
                "updated_at": self._now,
                **_recorded(before, self._event("left", source, {})),
            }
        facts, quiet = _facts(*entry), _quiet(entry[0])
        changed = [
            name for name, value in facts.items() if value != (before.get(name) or _DEFAULTS.get(name))
        ]
        if before["status"] == ACTIVE and not changed:
            if all(before.get(name) == value for name, value in quiet.items()):
                return None
            return "noted", {**quiet, "updated_at": self._now}
        event = "returned" if before["status"] == LEFT else "changed"
        changes: Document = {"status": ACTIVE, "left_at": None, **facts, **quiet}
        if any(name in _REACHED_BY for name in changed):
            changes["echo_logprobs"] = changes["probed_at"] = None  # it must be probed anew
        if "model" in changed and before.get("model") is not None:
            changes["cut_at"] = self._now
        told = self._event(event, entry[1], {**facts, "changed": changed})
        return event, {**changes, "updated_at": self._now, **_recorded(before, told)}

    def _event(self, event: str, source: str, facts: Mapping[str, Any]) -> Document:
        height = self._found.told.get(source)
        at_height = {} if height is None else {"height": height}
        return {"at": self._now, "event": event, "refresh": self._refresh, **at_height, **facts}


def _recorded(before: Document, event: Document) -> Document:
    """The history of a supplier with one more event."""
    history = [*before.get("history", ()), event]
    dropped = before.get("history_dropped", 0) + max(0, len(history) - HISTORY_EVENTS)
    return {"history": history[-HISTORY_EVENTS:], "history_dropped": dropped}


#: What documents lack that earlier versions wrote.
_DEFAULTS = {"source": CONFIG_SOURCE, "transport": "direct"}


def _facts(entry: Entry, source: str) -> Document:
    supplier = entry.config
    return {
        "transport": entry.transport,
        "base_url": supplier.base_url,
        "rpc_type": entry.rpc_type,
        "api": supplier.api,
        "model": supplier.model,
        "source": source,
    }


def _quiet(entry: Entry) -> Document:
    """What changes without being an event; what nothing tells leaves alone what is known."""
    told = {name: getattr(entry, name) for name in _QUIET}
    return {name: value for name, value in told.items() if value is not None}


def _plan_at_once(documents: DocumentStore, keys: Iterable[str], now: datetime) -> None:
    """Have the kept plans of suppliers looked at now, not when they were due before."""
    wanted = list(keys)
    if not wanted:
        return
    kept = [d["_id"] for d in documents.find(PLANS, {"_id": {"in": wanted}}, fields=["_id"])]
    for key in kept:
        documents.claim(PLANS, {"_id": key}, {"due_at": now})
