"""The roster: which suppliers there are, since when, what changed, who is asked now.

Its suppliers are those of ``testbench.yaml``, those the supplier sources list, and those of the services of
Pocket Network. One that leaves keeps its
document and its history; only its status changes. Every write is conditional on the version of the document
it was made from, so any number of processes may refresh at once.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import orjson

from testbench_dagster.config import SERVICE_SOURCE, Config, Settings, SupplierConfig
from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.price import Price
from testbench_dagster.core.records.plans import PlanId, PlanRecord
from testbench_dagster.core.records.suppliers import (
    OperatorKey,
    RosterEvent,
    RosterRow,
    SourceApi,
    SourceService,
    SupplierId,
    SupplierRecord,
    SupplierSource,
)
from testbench_dagster.core.relay import DEFAULT_TRANSPORT, Api, TransportName
from testbench_dagster.core.supplier import ACTIVE, CONFIG_SOURCE, LEFT, Supplier
from testbench_dagster.stages.discover.heights import record_height
from testbench_dagster.stages.discover.installation import own_store
from testbench_dagster.stages.discover.losses import Look, judge_losses
from testbench_dagster.stages.discover.sessions import record_chain
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.transports.discovery import ChainReading, Entry, SourceError, read_sources
from testbench_dagster.transports.registry import sources

#: Seconds all sources together may take.
READ_WITHIN_S = 60.0
#: Events kept of one supplier, the newest: a source that lets one come and go may not fill the document.
HISTORY_EVENTS = 200
#: What brings the roster, and with it the partitions of suppliers, up to date.
TO_REFRESH_ROSTER = "run `testbench run --max-relays 0`, or start `testbench up`"

_REACHED_BY = ("transport", "base_url", "rpc_type", "api", "model", "generation")
#: Changes after which earlier answers say nothing of what is measured now, where there was another value.
_MEASURED = ("model", "generation")
#: Changes without being an event: it moves with every block, and how a supplier answers does not with it.
_QUIET = ("stake_upokt", "host", "owner", "public_key")
_WRITES_AT_ONCE = 8
_ATTEMPTS = 20  # of writing one document that others change too
#: A listing may be older than what another process wrote meanwhile, by no more than it takes to read it. A
#: document that claims to be still newer was written by a machine whose clock is wrong.
_OVERLAP = timedelta(minutes=2)


@dataclass
class RosterReport:
    """What a refresh found: keys of the active suppliers, and of those something happened to.

    ``joined`` are new, ``returned`` had left, ``changed`` have another endpoint, API, model, price or source.
    ``problems`` tells what could not be used, by source, application or supplier key, ``warnings`` what works
    but should not stay so. ``doubted`` says by source why it is not believed whom it leaves out: these stay
    (:mod:`.losses`). ``heights`` are the newest known block heights by service, as far as this refresh was
    told one. ``known`` are all suppliers of the roster afterwards, as :func:`known_suppliers` reads them;
    ``waiting`` is how many new ones were left for the next refresh.
    """

    active: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    doubted: dict[str, str] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)
    known: list[Supplier] = field(default_factory=list)
    waiting: int = 0

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
    return _suppliers(workspace, None)


def _suppliers(workspace: Workspace, keys: Collection[str] | None) -> list[Supplier]:
    """Those of :func:`known_suppliers` that have one of these keys, None for all; others are not read."""
    where = None if keys is None else {"_id": {"in": sorted(keys)}}
    rows = {row.id: row for row in typed.find(workspace.documents, RosterRow, where)}
    return _of_rows(workspace.config.settings, rows, keys)


def _of_rows(
    settings: Settings, rows: Mapping[str, RosterRow], keys: Collection[str] | None = None
) -> list[Supplier]:
    """The suppliers of :func:`known_suppliers`, or those of them with these keys, by their rows."""
    origins = {label: _Origin.of(settings, label) for label in source_labels(settings)}
    configured = [config for config in settings.suppliers if keys is None or config.key in keys]
    known = [
        configured_supplier(config, rows.get(config.key), settings.shared_bounds(config.service))
        for config in configured
    ]
    own = {config.key for config in configured}
    now = datetime.now(UTC)
    others = [
        found
        for key, row in rows.items()
        if key not in own
        and (found := _listed(row, origins.get(row.source or ""), now, settings)) is not None
    ]
    return known + sorted(others, key=lambda s: (s.left_at is not None, s.joined_at or now, s.key))


def named_suppliers(workspace: Workspace, keys: Collection[str] | None) -> list[Supplier]:
    """Of all known suppliers those with these keys, whether they left or not; the active ones for None."""
    if keys is None:
        return active_suppliers(workspace)
    return _suppliers(workspace, frozenset(keys))


def one_supplier(workspace: Workspace, key: str) -> Supplier | None:
    """The supplier with this key, whether it left or not, without reading the others; None for a stranger."""
    settings = workspace.config.settings
    row = typed.get(workspace.documents, RosterRow, key)
    config = workspace.config.supplier(key)
    if config is not None:
        return configured_supplier(config, row, settings.shared_bounds(config.service))
    if row is None:
        return None
    label = row.source or ""
    origin = _Origin.of(settings, label) if label in source_labels(settings) else None
    return _listed(row, origin, datetime.now(UTC), settings)


def cuts_of(workspace: Workspace, key: str) -> list[datetime]:
    """When a supplier's earlier answers became void, as far as the roster remembers it; ascending."""
    known = typed.get(workspace.documents, SupplierRecord, key)
    if known is None:
        return []
    found = {event.cut_at for event in known.history if event.cut_at is not None}
    return sorted(found | ({known.cut_at} if known.cut_at is not None else set()))


def models_of(workspace: Workspace, key: str) -> list[tuple[datetime, str]]:
    """Which models a supplier claimed, each since when, as far as the roster remembers it; ascending."""
    known = typed.get(workspace.documents, SupplierRecord, key)
    events = () if known is None else known.history
    return sorted((event.at, event.model) for event in events if event.model is not None)


def active_apis(workspace: Workspace) -> set[Api]:
    """The request forms of :func:`active_suppliers`, without reading them one by one."""
    settings = workspace.config.settings
    labels = set(source_labels(settings))
    rows = typed.group(workspace.documents, SourceApi, {"status": ACTIVE})
    listed = {row.api for row in rows if row.source in labels and row.api is not None}
    return {s.api for s in settings.suppliers} | listed


def active_keys(
    workspace: Workspace, service: str | None = None, among: Collection[str] | None = None
) -> set[str]:
    """Keys of :func:`active_suppliers`, by a row of two fields each.

    Args:
        workspace: the installation.
        service: only those of this service.
        among: only those of these keys; no others are read.
    """
    settings = workspace.config.settings
    labels = set(source_labels(settings))
    where: dict[str, Any] = {"status": ACTIVE}
    if service is not None:
        where["service"] = service
    if among is not None:
        where["_id"] = {"in": sorted(among)}
    listed = {
        row.id for row in typed.find(workspace.documents, SupplierSource, where) if row.source in labels
    }
    own = {s.key for s in settings.suppliers if service is None or s.service == service}
    return listed | (own if among is None else own.intersection(among))


def active_by_service(workspace: Workspace) -> Counter[str]:
    """How many suppliers of each service are active, without reading them one by one."""
    settings = workspace.config.settings
    labels = set(source_labels(settings))
    found = Counter(supplier.service for supplier in settings.suppliers)
    for row in typed.group(workspace.documents, SourceService, {"status": ACTIVE}):
        if row.source in labels:
            found[row.service] += row.n
    return found


def retirable(workspace: Workspace, now: datetime, keys: Collection[str] | None = None) -> list[str]:
    """Keys of suppliers that left at least ``roster.grace_hours`` ago: their partitions may go.

    ``keys`` are those to look at, None for all: in time these are many more than have partitions.
    """
    until = now - timedelta(hours=workspace.config.settings.roster.grace_hours)
    where: dict[str, Any] = {"status": LEFT, "left_at": {"lte": until}}
    if keys is not None:
        where["_id"] = {"in": sorted(keys)}
    return [row.id for row in typed.find(workspace.documents, SupplierId, where, sort=[("_id", 1)])]


def no_suppliers_text(workspace: Workspace) -> str:
    """What to tell where nobody can be asked, with the remedy."""
    settings = workspace.config.settings
    listing = {"supplier_sources": settings.supplier_sources, "services": settings.discovered_services}
    named = [name for name, listed in listing.items() if listed]
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
    return [*listed, *(f"{SERVICE_SOURCE}{name}" for name in settings.discovered_services)]


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


def configured_supplier(
    config: SupplierConfig, row: RosterRow | None = None, shared: Mapping[str, Any] | None = None
) -> Supplier:
    """A supplier of testbench.yaml, with what the roster knows of it; ``shared``: bounds of its service."""
    return Supplier(
        address=config.address,
        service=config.service,
        base_url=config.base_url,
        api=config.api,
        model=config.model,
        api_key_env=config.api_key_env,
        bounds={**(shared or {}), **config.bounds},
        price=config.own_price,
        joined_at=row.joined_at if row else None,
        cut_at=row.cut_at if row else None,
        echo_logprobs=row.echo_logprobs if row else None,
        probed_at=row.probed_at if row else None,
    )


def _listed(row: RosterRow, origin: _Origin | None, now: datetime, settings: Settings) -> Supplier | None:
    """A supplier of another source; None where nothing tells how it was reached."""
    if row.base_url is None or row.api is None or row.model is None:
        return None
    active = row.status == ACTIVE and origin is not None
    return Supplier(
        address=row.address,
        service=row.service,
        base_url=row.base_url,
        api=row.api,
        model=row.model,
        api_key_env=origin.api_key_env if origin else None,
        bounds={**settings.shared_bounds(row.service), **origin.bounds} if origin else {},
        source=row.source or CONFIG_SOURCE,
        trusted=origin is not None and origin.trusted,
        status=ACTIVE if active else LEFT,
        joined_at=row.joined_at,
        left_at=None if active else row.left_at or now,
        cut_at=row.cut_at,
        echo_logprobs=row.echo_logprobs,
        probed_at=row.probed_at,
        transport=row.transport or DEFAULT_TRANSPORT,
        rpc_type=row.rpc_type,
        stake_upokt=row.stake_upokt,
        host=row.host,
        owner=row.owner,
        price=Price.from_document(row.price),
    )


def asked_with(config: Config, supplier: Supplier) -> str | None:
    """How a supplier is asked otherwise than tasks say, as JSON with sorted keys; None for as they say."""
    own = config.supplier(supplier.key) if supplier.source == CONFIG_SOURCE else None
    return _asked_with(config.settings, supplier.service, supplier.transport, own)


def _asked_with(
    settings: Settings, service: str, transport: TransportName, own: SupplierConfig | None
) -> str | None:
    asked = settings.asking(service, transport, own).generation.settings()
    return orjson.dumps(asked, option=orjson.OPT_SORT_KEYS).decode() if asked else None


def remember_echo_logprobs(workspace: Workspace, key: str, supported: bool) -> None:
    """Record what a capability probe found, leaving alone what others change meanwhile."""
    now = datetime.now(UTC)
    typed.claim(workspace.documents, SupplierRecord, {"_id": key}, echo_logprobs=supported, probed_at=now)


def cut_windows(workspace: Workspace, key: str, at: datetime, reason: str) -> bool:
    """Note that a supplier's model changed: only what it answers after ``at`` counts from now on.

    An instant before the known cut changes nothing. Its cached plan is looked at now.

    Returns:
        Whether the cut was moved.

    Raises:
        StoreError: other processes kept changing the supplier's document.
    """
    documents = workspace.documents
    for _ in range(_ATTEMPTS):
        before = typed.get(documents, SupplierRecord, key)
        if before is None or (before.cut_at is not None and before.cut_at >= at):
            return False
        noted_at = datetime.now(UTC)
        event = RosterEvent(at=noted_at, event="cut", cut_at=at, reason=reason)
        if _changed(documents, before, {"cut_at": at, **_recorded(before, event)}):
            plan_at_once(documents, [key], noted_at)
            return True
    raise StoreError(f"the cut of {key!r} could not be noted: other processes kept changing it; run again")


def _cut_now(workspace: Workspace, known: dict[str, RosterRow], now: datetime) -> None:
    """Have cuts that are dated ahead be of ``now``: a clock was ahead when they were found, and was set back.

    Else whatever is answered until their date would count as given by the model before. ``known`` is what the
    store has, and has afterwards.
    """
    documents = workspace.documents
    ahead = [key for key, row in known.items() if is_ahead(row.cut_at, now)]
    if not ahead:
        return
    for before in typed.by_id(documents, SupplierRecord, ahead).values():
        if before.cut_at is not None and is_ahead(before.cut_at, now):
            reason = f"the clock that dated its last cut {before.cut_at:%Y-%m-%d %H:%M} UTC was ahead"
            event = RosterEvent(at=now, event="cut", cut_at=now, reason=reason)
            _changed(documents, before, {"cut_at": now, **_recorded(before, event)})
    plan_at_once(documents, ahead, now)
    known.update(typed.by_id(documents, RosterRow, ahead))


# --------------------------------------------------------------------------------------------- refreshing


def refresh_roster(
    workspace: Workspace,
    now: datetime | None = None,
    deadline_s: float = READ_WITHIN_S,
    most_new: int | None = None,
) -> RosterReport:
    """Bring the roster up to date with the configuration and the supplier sources.

    Joins, leaves, returns and changes are recorded in each supplier's history with time, and with the block
    height where its source told one. A changed model, or another way of
    asking it, sets ``cut_at``. A source that cannot be read retires
    nobody, one that leaves out many at once nobody until that is confirmed (:mod:`.losses`), and a supplier
    whose entry cannot be used stays as it was; all are problems of the report.

    Args:
        workspace: the installation.
        now: the instant of the refresh, timezone-aware; the present by default.
        deadline_s: seconds that reading all sources may take.
        most_new: how many suppliers may join at most; the others wait for the next refresh.

    Raises:
        ForeignStore: the store holds the suppliers of another installation (:mod:`.installation`).
        StoreError: the document store failed.
    """
    now = now or datetime.now(UTC)
    documents, settings = workspace.documents, workspace.config.settings
    warnings = own_store(workspace, source_labels(settings), now)
    found = _read(workspace, deadline_s)
    report = RosterReport(problems=found.problems, warnings=warnings | found.warnings)
    for reading in found.chains:
        record_chain(workspace, reading, now)
    for service, height in found.heights.items():
        report.heights[service] = record_height(documents, service, height, now)
    known = {row.id: row for row in typed.find(documents, RosterRow)}
    _cut_now(workspace, known, now)
    _doubt_losses(documents, settings, found, known, report, now)
    recorder = _Recorder(documents, settings, found, report, now, most_new)
    recorder.record(known)
    plan_at_once(documents, [*report.joined, *report.returned, *report.changed], now)
    report.known = _of_rows(settings, known)
    report.active.extend(supplier.key for supplier in report.known if supplier.left_at is None)
    return report


def _doubt_losses(
    documents: DocumentStore,
    settings: Settings,
    found: _Found,
    known: Mapping[str, RosterRow],
    report: RosterReport,
    now: datetime,
) -> None:
    """Have those stay whom a source leaves out all at once, as those whose entries it garbles do."""
    recently = now - timedelta(minutes=settings.roster.loss_minutes)
    labels = set(source_labels(settings)) - found.unread
    active, gone = Counter[str](), Counter[str]()
    missing: dict[str, set[str]] = {label: set() for label in labels}
    for key, row in known.items():
        label = row.source or CONFIG_SOURCE
        if label not in labels:
            continue
        if row.status == ACTIVE:
            active[label] += 1
            if key not in found.suppliers and key not in found.broken.get(label, ()):
                missing[label].add(key)
        elif row.left_at is not None and recently < row.left_at <= now:
            gone[label] += 1
    looks = {label: Look(active[label], missing[label], gone[label]) for label in labels}
    losses = judge_losses(documents, settings.roster, looks, now)
    report.doubted.update(losses.told)
    found.problems.update(losses.told)
    for label, stay in losses.kept.items():
        found.broken[label] = stay.union(found.broken.get(label, ()))


@dataclass
class _Found:
    """What the configuration and the sources say, by supplier key and by source."""

    suppliers: dict[str, tuple[Entry, str]] = field(default_factory=dict)  # key → entry, its source
    unread: set[str] = field(default_factory=set)  # sources that told nothing
    broken: dict[str, Collection[str]] = field(default_factory=dict)  # source → keys of entries it garbled
    chains: list[ChainReading] = field(default_factory=list)  # what the chains of services tell
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
        """Take what a source lists, where no earlier one lists the same.

        That the configuration names a supplier as its source does is no contradiction: it says more of it,
        such as that it is a reference.
        """
        self.problems.update(problems)
        self.broken[label] = broken
        for entry in entries:
            key = entry.config.key
            known, first = self.suppliers.setdefault(key, (entry, label))
            if first != label and not (first == CONFIG_SOURCE and _same_endpoint(known, entry)):
                self.problems[key] = (
                    f"{label}: supplier {key} is listed by {first} too, which counts; remove one"
                )
        for service, height in heights.items():
            self.heights[service] = max(height, self.heights.get(service, 0))


def _same_endpoint(one: Entry, other: Entry) -> bool:
    """Whether both say the same of where a supplier is, by which API it is asked and for which model."""
    a, b = one.config, other.config
    return (a.base_url, a.api, a.model) == (b.base_url, b.api, b.model)


def _read(workspace: Workspace, deadline_s: float) -> _Found:
    settings = workspace.config.settings
    found = _Found(suppliers={s.key: (Entry(s), CONFIG_SOURCE) for s in settings.suppliers})
    listed = sources(workspace.config, partial(_known, workspace))
    # the order tells which counts for a supplier of several
    ordered = {label: listed[label] for label in source_labels(settings)}
    for label, listing in read_sources(ordered, deadline_s).items():
        if isinstance(listing, SourceError):
            found.unread.add(label)
            found.problems[label] = f"{label}: {listing}; its suppliers stay as they were"
            continue
        found.warnings.update(listing.warnings)
        found.take(label, listing.entries, listing.broken, listing.problems, listing.heights)
        if listing.chain is not None:
            found.chains.append(listing.chain)
        if listing.height is not None:
            found.told[label] = listing.height
    return found


def _known(workspace: Workspace, service: str) -> dict[str, str | None]:
    """Operators of a service whom the roster has as active, with their public keys as far as known."""
    where = {"source": f"{SERVICE_SOURCE}{service}", "status": ACTIVE}
    return {row.address: row.public_key for row in typed.find(workspace.documents, OperatorKey, where)}


class _Recorder:
    """Writes what was found into the roster's documents and notes in the report what it did."""

    def __init__(
        self,
        documents: DocumentStore,
        settings: Settings,
        found: _Found,
        report: RosterReport,
        now: datetime,
        most_new: int | None = None,
    ) -> None:
        self._settings = settings
        self._documents = documents
        self._found = found
        self._report = report
        self._now = now
        self._most_new = most_new
        self._asked: dict[tuple[str, TransportName], str | None] = {}  # of who has no settings of its own
        self._written: set[str] = set()  # keys of documents that are others than they were read
        self._refresh = secrets.token_hex(4)  # stands in the events this refresh records

    def record(self, known: dict[str, RosterRow]) -> None:
        """Write until every document agrees with what was found, or others know better.

        ``known`` is what the store has, and has afterwards.

        Raises:
            StoreError: other processes changed the same documents again and again.
        """
        new = {key: found for key, found in self._found.suppliers.items() if key not in known}
        if self._most_new is not None and len(new) > self._most_new:
            self._report.waiting = len(new) - self._most_new
            new = dict(islice(new.items(), self._most_new))
        missed = self._insert(new) | self._update(known)
        for _ in range(_ATTEMPTS):
            known.update(typed.by_id(self._documents, RosterRow, missed | self._written))
            if not missed:
                return
            self._written.clear()
            # those that another process was faster with, as they are by now
            missed = self._update({key: known[key] for key in missed})
        raise StoreError(
            f"the roster could not be refreshed: other processes kept changing {sorted(missed)[0]!r}; "
            "refresh again"
        )

    def _insert(self, found: Mapping[str, tuple[Entry, str]]) -> set[str]:
        """Add who is new; return the keys that another process added first."""
        new = [self._record(key, entry, source) for key, (entry, source) in found.items()]
        keys = {record.id for record in new}
        self._written |= keys
        if typed.put_new(self._documents, SupplierRecord, new) == len(new):
            self._report.joined.extend(record.id for record in new)
            return set()
        stored = typed.by_id(self._documents, SupplierRecord, keys)
        ours = {key for key, record in stored.items() if record.history[0].refresh == self._refresh}
        self._report.joined.extend(record.id for record in new if record.id in ours)
        return keys - ours

    def _update(self, known: Mapping[str, RosterRow]) -> set[str]:
        """Change who is not as found; return the keys that another process changed first."""
        wanted = {key: update for key, row in known.items() if (update := self._change(row)) is not None}
        events = [key for key, (_, _, event) in wanted.items() if event is not None]
        histories = typed.by_id(self._documents, SupplierRecord, events) if events else {}

        def write(key: str) -> bool:
            _, changes, event = wanted[key]
            if event is not None:
                before = histories.get(key)
                if before is None or before.version != known[key].version:
                    return False
                changes = {**changes, **_recorded(before, event)}
            return _changed(self._documents, known[key], changes)

        missed = set()
        told = {
            "left": self._report.left,
            "returned": self._report.returned,
            "changed": self._report.changed,
            "noted": [],  # no event of the supplier's
        }
        # a replicated store takes milliseconds to confirm each, but many at once
        with ThreadPoolExecutor(_WRITES_AT_ONCE) as pool:
            for (key, (name, _, _)), written in zip(wanted.items(), pool.map(write, wanted), strict=True):
                if written:
                    told[name].append(key)
                    self._written.add(key)
                else:
                    missed.add(key)
        return missed

    def _record(self, key: str, entry: Entry, source: str) -> SupplierRecord:
        supplier, facts = entry.config, self._facts(entry, source)
        return SupplierRecord(
            id=key,
            address=supplier.address,
            service=supplier.service,
            status=ACTIVE,
            joined_at=self._now,
            left_at=None,
            cut_at=None,
            echo_logprobs=None,
            probed_at=None,
            updated_at=self._now,
            version=1,
            history=(self._event("joined", source, facts),),
            **facts,
            **_quiet(entry),
        )

    def _change(self, before: RosterRow) -> tuple[str, dict[str, Any], RosterEvent | None] | None:
        """What has to happen to a known supplier: how that is called, the changed fields, and its event."""
        key, source = before.id, before.source or CONFIG_SOURCE
        if self._now < (before.updated_at or self._now) <= self._now + _OVERLAP:
            return None  # another process read the sources later than this one
        # who was listed by a source that fails now, or garbles the entry, does not become another's meanwhile
        unclear = source in self._found.unread or key in self._found.broken.get(source, ())
        entry = self._found.suppliers.get(key)
        if unclear and (entry is None or entry[1] != CONFIG_SOURCE):
            return None
        if entry is None:
            if before.status == LEFT:
                return None
            gone = {"status": LEFT, "left_at": self._now, "updated_at": self._now}
            return "left", gone, self._event("left", source, {})
        facts, quiet = self._facts(*entry), _quiet(entry[0])
        changed = [
            name for name, value in facts.items() if value != (getattr(before, name) or _DEFAULTS.get(name))
        ]
        if before.status == ACTIVE and not changed:
            if all(getattr(before, name) == value for name, value in quiet.items()):
                return None
            return "noted", {**quiet, "updated_at": self._now}, None
        event = "returned" if before.status == LEFT else "changed"
        changes: dict[str, Any] = {"status": ACTIVE, "left_at": None, **facts, **quiet}
        if any(name in _REACHED_BY for name in changed):
            changes |= {"echo_logprobs": None, "probed_at": None}  # it must be probed anew
        if any(name in _MEASURED for name in changed) and before.model is not None:
            changes |= {"cut_at": self._now}
        changes |= {"updated_at": self._now}
        return event, changes, self._event(event, entry[1], {**facts, "changed": changed})

    def _facts(self, entry: Entry, source: str) -> dict[str, Any]:
        """What of an entry is an event when it changes."""
        supplier = entry.config
        price = supplier.own_price
        return {
            "generation": self._asked_with(entry, source),
            "transport": entry.transport,
            "base_url": supplier.base_url,
            "rpc_type": entry.rpc_type,
            "api": supplier.api,
            "model": supplier.model,
            "source": source,
            "price": None if price is None else price.to_document(),
        }

    def _asked_with(self, entry: Entry, source: str) -> str | None:
        service, transport = entry.config.service, entry.transport
        if source == CONFIG_SOURCE:
            return _asked_with(self._settings, service, transport, entry.config)
        if (service, transport) not in self._asked:
            self._asked[service, transport] = _asked_with(self._settings, service, transport, None)
        return self._asked[service, transport]

    def _event(self, event: str, source: str, facts: Mapping[str, Any]) -> RosterEvent:
        height = self._found.told.get(source)
        return RosterEvent(at=self._now, event=event, refresh=self._refresh, height=height, **facts)


def _changed(
    documents: DocumentStore, before: SupplierRecord | RosterRow, changes: Mapping[str, Any]
) -> bool:
    """Change a supplier unless another process did meanwhile; say whether it was changed."""
    where = {"_id": before.id, "version": before.version}
    version = (before.version or 0) + 1
    return typed.claim(documents, SupplierRecord, where, version=version, **changes) is not None


def _recorded(before: SupplierRecord, event: RosterEvent) -> dict[str, Any]:
    """The history of a supplier with one more event."""
    history = (*before.history, event)
    dropped = before.history_dropped + max(0, len(history) - HISTORY_EVENTS)
    return {"history": history[-HISTORY_EVENTS:], "history_dropped": dropped}


#: What documents lack that earlier versions wrote.
_DEFAULTS = {"source": CONFIG_SOURCE, "transport": DEFAULT_TRANSPORT}


def _quiet(entry: Entry) -> dict[str, Any]:
    """What changes without being an event; what nothing tells leaves alone what is known."""
    told = {name: getattr(entry, name) for name in _QUIET}
    return {name: value for name, value in told.items() if value is not None}


def plan_at_once(documents: DocumentStore, keys: Iterable[str], now: datetime) -> None:
    """Have the cached plans of suppliers looked at now, not when they were due before."""
    wanted = list(keys)
    if not wanted:
        return
    for key in typed.by_id(documents, PlanId, wanted):
        # what its next relay can cost may be another by now
        typed.claim(documents, PlanRecord, {"_id": key}, due_at=now, money_needed=None)
