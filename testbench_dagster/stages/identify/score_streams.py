"""The streams of scores that changes show in: read from the facts, kept, and only added to.

A stream holds a supplier's values of all its docs, of all tasks, since its last change: what the score counts
of each, from 0 to 1, turned so that more is better. Failed docs count as they do in the score, those whose
answer leaves the metric without a value among them; open ones not yet. Dated by when a doc was asked: hard
docs take longer, so of many asked at once the wrong answers come last, which would look like a change. Beside
each new doc stands how much better the supplier's peers were on it than they are on the whole: so it matters
little who of them answered, nor who joined.

A stream is a document of some 25 kB (``score_streams``), so that an evaluation reads what was written since
the last one, and not all that a supplier and its peers ever answered. Docs that are old are folded: what they
came to (:class:`~testbench_dagster.identity.FoldedScores`) does not grow with how often they were asked. It
is a view: what is not there, or was made by other code or another scorer, is read from the facts again (what
peers are on the whole as of then), as far back as windows go: failed docs are known of these alone, and read
with the answers of earlier months they made whoever fails often look worse lately. So what is kept stays
where it can: where values were folded that another scorer gave, the stream begins after them.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptsOfTask
from testbench_dagster.core.records.identity import (
    ProxyOfSupplier,
    ScoreLevel,
    ScoreStreamRecord,
    StreamedTask,
)
from testbench_dagster.core.records.plans import FailedEvaluations
from testbench_dagster.core.records.scores import UNSCORABLE, DatedScore
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import SCORE_STREAMS, scorer_version
from testbench_dagster.identity import FoldedScores, ScoreStream, fold_scores
from testbench_dagster.scoring.bounds import UNIT, declared_bounds
from testbench_dagster.scoring.failures import FailuresAs, failures_of, higher_is_better, is_mean
from testbench_dagster.scoring.rows import is_finite, primary_pair
from testbench_dagster.stages.identify.folded_streams import packed, restored, stored, unpacked
from testbench_dagster.stages.plan.planner import PROXY_FAILURES
from testbench_dagster.stages.score.samples import Task, samples_by_task
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import content_hash, typed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Suppliers, of as many groups, whose values say how hard a doc is: those of more would hardly say more.
PANEL = 32
#: Newest docs that say what a supplier is on the whole, and fewest.
LEVEL_DOCS, LEAST_LEVEL_DOCS = 700, 25
#: Facts may be written later than they are dated, and peers answer later: so much is looked at once more.
LATE = timedelta(days=7)
#: Docs asked so long ago are folded, or longer where an answer or a failure may be known later still.
FOLDED_AFTER = timedelta(days=64)
#: Fewer at a time are not worth it.
LEAST_FOLDED = 500

#: The version of streams before any were folded, and whose entries were packed one after the other.
_UNFOLDED = 2

#: What an entry holds of itself, and of its peers.
_OWN = [
    ("at", "<i8"),  # milliseconds since 1970
    ("task", "<u2"),  # place in the tasks of the record
    ("doc", "<u4"),
    ("epoch", "<u4"),
    ("round", "<u4"),
    ("value", "<f4"),
    ("failed", "u1"),
]
_ENTRY = [*_OWN, ("peers", "<f4"), ("n_peers", "u1")]
_OWN_NAMES = [name for name, _ in _OWN]
_Row = tuple[int, int, int, int, int, float, int, float, int]

_TASKS = 50  # read with one query
_DOCS = 500  # ids in one query
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_DAY = timedelta(days=1)
_UNANSWERED = [fault.value for fault in Fault if not fault.answered]


@dataclass(frozen=True)
class _Watched:
    """A task whose scores are watched: see :class:`~testbench_dagster.core.records.identity.StreamedTask`."""

    task: str
    task_hash: str
    scorer_version: str
    metric: str
    filter: str
    higher_is_better: bool
    least: float
    most: float


@dataclass
class _Cached:
    """The stream of a supplier at work.

    ``tasks`` are those that entries name by their place, ``added`` the places of those of which nothing was
    read yet. Entries are of what was asked after ``begins``; facts dated after ``recent`` may be new.
    ``folded``: what came before them, if anything, and ``answered`` the places of the tasks of which any of
    it was an answer.
    """

    supplier: Supplier
    tasks: list[_Watched]
    entries: NDArray[np.void]
    begins: datetime
    read_until: datetime | None
    recent: datetime
    folded: FoldedScores | None = None
    answered: set[int] = field(default_factory=set)
    added: set[int] = field(default_factory=set)
    changed: bool = False

    @classmethod
    def empty(cls, supplier: Supplier) -> _Cached:
        """Of a supplier of which all is to be read from the facts."""
        import numpy as np

        begins = supplier.cut_at or _BEGINNING
        return cls(supplier, [], np.zeros(0, dtype=_ENTRY), begins, None, begins)


class ScoreStreams:
    """Brings the streams of suppliers of one service up to date, and stores them.

    ``period``: in which their docs are renewed.
    """

    def __init__(
        self, workspace: Workspace, service: str, suppliers: Sequence[Supplier], now: datetime
    ) -> None:
        """``suppliers``: the active ones of the service, peers of each other."""
        self._workspace, self._documents = workspace, workspace.documents
        self._service, self._suppliers, self._now = service, suppliers, now
        self._late = LATE + DocClock.from_minutes(workspace.config.settings.planning.occasions_minutes).limit
        self.period = timedelta(days=workspace.config.settings.sampling.max_age_days)
        self._tasks = _watched(workspace)
        self._pairs = dict(self._tasks)
        self._others = Peers(workspace, now)
        self._cuts = {s.key: s.cut_at for s in suppliers if s.cut_at is not None}
        self._placed = typed.by_id(workspace.documents, ProxyOfSupplier, [s.key for s in suppliers])

    def read(self, chosen: Sequence[Supplier]) -> Iterator[tuple[str, ScoreStream, FoldedScores | None]]:
        """The streams of some of the suppliers as they are now, by key; what is new of them is stored.

        Beside each stands what was folded before it, None where nothing was.
        """
        cached = [self._updated(supplier) for supplier in chosen]
        self._compare(cached)
        for one in cached:
            asked = [task.task for task, (spec, _) in self._tasks if spec.asked_of(one.supplier)]
            self._fold(one, asked)
            if one.changed or one.read_until is None or self._now - one.read_until >= _DAY:
                self._store(one)
            yield one.supplier.key, _stream(one, asked), one.folded

    def _fold(self, cached: _Cached, asked: Collection[str]) -> None:
        """Fold what is old, if it is worth it, but for the newest docs that say what the supplier is.

        The docs of the first period decide how high an alarm is: they must all be there.
        """
        import numpy as np

        entries = cached.entries
        old = self._now - max(FOLDED_AFTER, 2 * self._late, self.period + self._late)
        n = min(int(np.searchsorted(entries["at"], _ms(old))), len(entries) - LEVEL_DOCS)
        if n < LEAST_FOLDED:
            return
        stream = _stream(cached, asked)
        cached.folded = fold_scores(cached.supplier.key, stream, n, self.period, cached.folded)
        cached.answered.update(np.unique(entries["task"][:n][entries["failed"][:n] == 0]).tolist())
        cached.entries, cached.changed = entries[n:], True

    def _store(self, cached: _Cached) -> None:
        record = ScoreStreamRecord(
            id=cached.supplier.key,
            service=self._service,
            read_until=self._now,
            level=_level(cached.entries["value"]),
            cut_at=cached.supplier.cut_at,
            version=SCORE_STREAMS.number,
            tasks=tuple(StreamedTask(**vars(task)) for task in cached.tasks),
            n=len(cached.entries),
            entries=packed(cached.entries),
            folded=None if cached.folded is None else stored(cached.folded, cached.answered),
        )
        typed.upsert(self._documents, ScoreStreamRecord, [record])

    # -- own values ---------------------------------------------------------------------------------------

    def _updated(self, supplier: Supplier) -> _Cached:
        import numpy as np

        cached = self._loaded(supplier)
        found = self._found(cached)
        young = _young(cached)
        if not found and not young.any():
            return cached
        entries = np.concatenate([cached.entries[~young], np.array(found, dtype=_ENTRY)])
        entries = entries[np.lexsort((entries["round"], entries["doc"], entries["task"], entries["at"]))]
        if not np.array_equal(entries[_OWN_NAMES], cached.entries[_OWN_NAMES]):
            cached.entries, cached.changed = entries, True
        return cached

    def _found(self, cached: _Cached) -> list[_Row]:
        """What the facts hold beyond the entries, but for those that are young."""
        begins = _ms(cached.begins)
        # what is read again was asked a little before it was answered
        near = cached.entries["at"] > (begins if cached.added else _ms(cached.recent - _DAY))
        known = {_key(row) for row in cached.entries[near & ~_young(cached)].tolist()}
        found = {
            _key(row): row
            for row in self._values(cached, cached.begins)
            if row[0] > begins and _key(row) not in known
        }
        return list(found.values())

    def _loaded(self, supplier: Supplier) -> _Cached:
        """What is kept of a supplier, without the values that another scorer gave; its tasks and today's."""
        record = typed.get(self._documents, ScoreStreamRecord, supplier.key)
        known = (SCORE_STREAMS.number, _UNFOLDED)
        if record is None or record.version not in known or record.cut_at != supplier.cut_at:
            return self._with_tasks(_Cached.empty(supplier))
        begins = supplier.cut_at or _BEGINNING
        # by a clock that was set back since: nobody knows until when, so that all that counts is looked at
        known_until = None if is_ahead(record.read_until, self._now) else record.read_until
        late = self._late if known_until else self.period + self._late
        cached = _Cached(
            supplier,
            [_Watched(*(getattr(task, part.name) for part in fields(_Watched))) for task in record.tasks],
            _entries(record),
            begins,
            known_until,
            max(begins, (known_until or self._now) - late),
        )
        if record.folded is not None:
            cached.folded = restored(supplier.key, record.folded)
            cached.answered = set(record.folded.answered)
            # older docs are in there, or of a task that was not watched then
            cached.begins = record.folded.last_at - _MS
        return self._with_tasks(cached)

    def _with_tasks(self, cached: _Cached) -> _Cached:
        """With the tasks of today, and without what another scorer gave."""
        # with other data its docs are others, and both stay; of the same docs only one scorer's values count
        current = {(task.task, task.task_hash): task for task, _ in self._tasks}
        for place, task in enumerate(cached.tasks):
            today = current.get((task.task, task.task_hash), task)
            if task == today:
                continue
            if cached.folded is not None and cached.folded.holds(place):
                cached.folded, cached.answered = None, set()
            cached.entries = cached.entries[cached.entries["task"] != place]
            cached.tasks[place] = today
            cached.added.add(place)
            cached.changed = True
        for task, _ in self._tasks:
            if task not in cached.tasks:
                cached.added.add(len(cached.tasks))
                cached.tasks.append(task)
        return cached

    def _values(self, cached: _Cached, begins: datetime) -> Iterator[_Row]:
        """Entries of what was scored or failed: of tasks that were added what counts, else what is recent."""
        places = {task: place for place, task in enumerate(cached.tasks)}
        together: dict[datetime, list[tuple[_Watched, Task]]] = defaultdict(list)
        for watched, of_task in self._tasks:
            since = self._anew_from(of_task[0], begins) if places[watched] in cached.added else cached.recent
            together[since].append((watched, of_task))
        for since, tasks in together.items():
            for start in range(0, len(tasks), _TASKS):
                some = tasks[start : start + _TASKS]
                scored = self._scored([cached.supplier.key], [task for task, _ in some], since)
                worst = {}
                for task, pair in some:
                    place = places[task]
                    raw = [row.metrics.get(task.metric) for row in scored[task] if row.error is None]
                    values = [value for value in raw if is_finite(value)]
                    worst[task] = _worst(pair, task, values)
                    own = cached.entries[cached.entries["task"] == place]
                    answered = place in cached.answered or (own["failed"] == 0).any()
                    lacking = worst[task] if values or answered else None
                    for row in scored[task]:
                        yield from _scored_entry(row, task, place, worst[task], lacking)
                yield from self._failed(cached.supplier, some, since, places, worst)

    def _anew_from(self, spec: TaskSpec, begins: datetime) -> datetime:
        """From when on a task's values are read that were not read before: as far back as its windows go.

        What was left unanswered is known of these alone.
        """
        return max(begins, self._now - spec.max_age(self.period / _DAY))

    def _scored(
        self, suppliers: Sequence[str], tasks: Sequence[_Watched], since: datetime
    ) -> dict[_Watched, list[DatedScore]]:
        """By task what today's scorer made of the answers of some suppliers that came after an instant."""
        wanted = {(t.task, t.task_hash, t.scorer_version, t.filter): t for t in tasks}
        where = {
            "supplier": {"in": list(suppliers)},
            "task": {"in": sorted({t.task for t in tasks})},
            "task_hash": {"in": sorted({t.task_hash for t in tasks})},
            "filter": {"in": sorted({t.filter for t in tasks})},
            "answered_at": {"gt": since},
        }
        found: dict[_Watched, list[DatedScore]] = {task: [] for task in tasks}
        for row in typed.find(self._documents, DatedScore, where):
            task = wanted.get((row.task, row.task_hash, row.scorer_version, row.filter))
            if task is not None:
                found[task].append(row)
        return found

    def _failed(
        self,
        supplier: Supplier,
        tasks: Sequence[tuple[_Watched, Task]],
        since: datetime,
        places: Mapping[_Watched, int],
        worst: Mapping[_Watched, float | None],
    ) -> Iterator[_Row]:
        """Entries of docs that a supplier left unanswered for good, as its windows say."""
        where = {
            "supplier": supplier.key,
            "task": {"in": [task.task for task, _ in tasks]},
            "fault": {"in": _UNANSWERED},
            "finished_at": {"gt": since},
        }
        lost = {(row.task, row.task_hash) for row in typed.group(self._documents, AttemptsOfTask, where)}
        some = {task.task: (task, pair) for task, pair in tasks if (task.task, task.task_hash) in lost}
        if not some:
            return
        windows = samples_by_task(
            self._workspace, supplier, [pair for _, pair in some.values()], self._now, self._others
        )
        for name, window in windows:
            task, _ = some[name]
            value = worst[task]
            for sample in (*window.samples, *window.beyond) if value is not None else ():
                if sample.failed and sample.at > since:
                    at, doc, place = _ms(sample.at), sample.doc_id, places[task]
                    yield (at, place, doc, sample.epoch, sample.round, float(value or 0.0), 1, 0.0, 0)

    # -- peers --------------------------------------------------------------------------------------------

    def _compare(self, streams: Sequence[_Cached]) -> None:
        """Put beside new docs how well peers did; beside recent ones again, since peers may answer later."""
        import numpy as np

        wanted: dict[_Watched, list[tuple[_Cached, NDArray[np.int64]]]] = defaultdict(list)
        for one in streams:
            current = [place for place, task in enumerate(one.tasks) if task in self._pairs]
            compared = _first_of_doc(one) & np.isin(one.entries["task"], current)
            compared &= (one.entries["at"] > _ms(one.recent)) | np.isin(one.entries["task"], list(one.added))
            for place in np.unique(one.entries["task"][compared]).tolist():
                rows = np.flatnonzero(compared & (one.entries["task"] == place))
                wanted[one.tasks[place]].append((one, rows))
        if not wanted:
            return
        panel = self._panel()
        groups = [self._group(key) for key in panel]
        docs = {
            task: sorted({int(doc) for one, rows in of_task for doc in one.entries["doc"][rows]})
            for task, of_task in wanted.items()
        }
        values = {}
        for task, of_task in wanted.items():
            first = min(int(one.entries["at"][rows[0]]) for one, rows in of_task)
            values[task] = self._panel_values(task, panel, docs[task], _BEGINNING + first * _MS)
        levels = self._levels(panel, streams, values.values())
        for task, of_task in wanted.items():
            at = {doc: number for number, doc in enumerate(docs[task])}
            away = values[task] - levels
            for one, rows in of_task:
                own = self._group(one.supplier.key)
                others = away[:, [group != own for group in groups]]
                others = others[[at[doc] for doc in one.entries["doc"][rows].tolist()]]
                n = np.isfinite(others).sum(axis=1)
                means = (np.nansum(others, axis=1) / np.maximum(n, 1)).astype("<f4")
                entries = one.entries
                if np.any(entries["n_peers"][rows] != n) or np.any(entries["peers"][rows] != means):
                    entries["n_peers"][rows], entries["peers"][rows] = n, means
                    one.changed = True

    def _levels(
        self,
        panel: Sequence[str],
        streams: Sequence[_Cached],
        values: Iterable[NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """What each of the panel is on the whole, by its stream, else by the values read; NaN of too few."""
        import numpy as np

        known = {one.id: one.level for one in typed.by_id(self._documents, ScoreLevel, panel).values()}
        known |= {one.supplier.key: _level(one.entries["value"]) for one in streams}
        levels = np.array([np.nan if (level := known.get(key)) is None else level for key in panel])
        together = np.concatenate(list(values))
        for column in np.flatnonzero(np.isnan(levels)).tolist():
            read = together[:, column]
            level = _level(read[np.isfinite(read)])
            levels[column] = np.nan if level is None else level
        return levels

    def _panel(self) -> list[str]:
        """Whose values say how hard a doc is: the proxy of each group; of many groups always the same."""
        failing = {
            plan.id
            for plan in typed.find(self._documents, FailedEvaluations, {"service": self._service})
            if (plan.failures or 0) >= PROXY_FAILURES
        }
        proxies = {one.proxy for one in self._placed.values()}
        chosen: dict[str, str] = {}
        for supplier in sorted(s.key for s in self._suppliers if s.key not in failing):
            group = self._group(supplier)
            if group not in chosen or supplier in proxies:
                chosen[group] = supplier
        # one more than are needed: a supplier is no peer of its own group
        return sorted(chosen.values(), key=lambda key: content_hash([self._service, key]))[: PANEL + 1]

    def _group(self, supplier: str) -> str:
        placed = self._placed.get(supplier)
        return supplier if placed is None else placed.group

    def _panel_values(
        self, task: _Watched, panel: Sequence[str], docs: Sequence[int], first: datetime
    ) -> NDArray[np.float64]:
        """The newest value of each of the panel on each doc, of shape (docs, panel); NaN where there is none.

        Of answers that still counted when the docs were asked first, and after the peer's own last change.
        """
        import numpy as np

        spec, _ = self._pairs[task]
        since = first - spec.max_age(self._workspace.config.settings.sampling.max_age_days)
        where: dict[str, Any] = {
            "supplier": {"in": list(panel)},
            "task": task.task,
            "task_hash": task.task_hash,
            "filter": task.filter,
            "answered_at": {"gt": max(since, _BEGINNING)},
        }
        if len(docs) <= _DOCS:
            where["doc_id"] = {"in": list(docs)}
        rows, columns = ({key: n for n, key in enumerate(of)} for of in (docs, panel))
        values = np.full((len(docs), len(panel)), np.nan)
        newest = np.full(values.shape, -1, dtype=np.int64)
        for score in typed.find(self._documents, DatedScore, where):
            row, column, value = rows.get(score.doc_id), columns[score.supplier], _value(score, task)
            at = _ms(score.answered_at)
            if row is None or value is None or score.scorer_version != task.scorer_version:
                continue
            if score.answered_at <= self._cuts.get(score.supplier, since):
                continue
            if at > newest[row, column]:
                values[row, column], newest[row, column] = value, at
        return values


def _watched(workspace: Workspace) -> list[tuple[_Watched, Task]]:
    """The tasks that are watched: scored by a mean of the docs' values, and not known to have no bounds."""
    found = []
    for spec in workspace.specs:
        registration = None if spec.signs else workspace.datasets.current(spec.name)
        if registration is None:
            continue
        metric, name = primary_pair(spec, registration)
        least, most = declared_bounds(registration, metric) or UNIT
        if not is_mean(registration, metric) or math.isinf(least) or math.isinf(most):
            continue
        task = _Watched(
            task=spec.name,
            task_hash=registration.task_hash,
            scorer_version=scorer_version(registration),
            metric=metric,
            filter=name,
            higher_is_better=higher_is_better(registration, metric),
            least=least,
            most=most,
        )
        found.append((task, (spec, registration)))
    return found


def _value(row: DatedScore, task: _Watched) -> float | None:
    """The value of an answer in the stream; None where it has none there."""
    value = row.metrics.get(task.metric)
    return _in_stream(value, task) if is_finite(value) else None


def _in_stream(value: float, task: _Watched) -> float | None:
    """What a value of a metric is in the stream: from 0 to 1, more being better; None beyond.

    One that is less than a score is taken to begin at is the worst there is: it may not hide a fall.
    """
    share = (value - task.least) / (task.most - task.least)
    better = max(share, 0.0) if task.higher_is_better else 1.0 - share
    return better if 0 <= better <= 1 else None


def _worst(pair: Task, task: _Watched, values: Sequence[float]) -> float | None:
    """What a failed doc counts as in the stream; None where that is nothing."""
    failures = failures_of(*pair, task.metric, values)
    if failures.kind is not FailuresAs.WORST or failures.worst is None:
        return None
    return _in_stream(failures.worst, task)


def _scored_entry(
    row: DatedScore, task: _Watched, place: int, worst: float | None, lacking: float | None
) -> Iterator[_Row]:
    """The entry of an answer: ``worst`` if no scorer can digest it, ``lacking`` if it leaves no value."""
    if row.error is not None:
        value = worst if row.error.startswith(UNSCORABLE) else None
    else:
        value = _value(row, task) if is_finite(row.metrics.get(task.metric)) else lacking
    if value is not None:
        at = _ms(row.answered_at - timedelta(milliseconds=row.latency_ms or 0))
        yield (at, place, row.doc_id, row.epoch, row.round, value, 0, 0.0, 0)


def _entries(record: ScoreStreamRecord) -> NDArray[np.void]:
    """The entries of a stream as it is stored."""
    import numpy as np

    if record.version == _UNFOLDED:
        return np.frombuffer(zlib.decompress(record.entries), dtype=_ENTRY).copy()
    return unpacked(record.entries, _ENTRY)


def _young(cached: _Cached) -> NDArray[np.bool_]:
    """Which entries may turn out to be void: failed docs, while they are young."""
    return (cached.entries["failed"] > 0) & (cached.entries["at"] > _ms(cached.recent))


def _stream(cached: _Cached, asked: Collection[str]) -> ScoreStream:
    import numpy as np

    entries = cached.entries
    return ScoreStream(
        at=entries["at"].astype(np.int64),
        docs=_docs(entries),
        tasks=entries["task"].astype(np.int64),
        values=entries["value"].astype(np.float64),
        peers=entries["peers"].astype(np.float64),
        n_peers=entries["n_peers"].astype(np.int64),
        names=[task.task for task in cached.tasks],
        asked=asked,
    )


def _level(values: NDArray[np.float64]) -> float | None:
    """The mean of the newest values; None of too few."""
    newest = values[-LEVEL_DOCS:]
    return float(newest.mean()) if len(newest) >= LEAST_LEVEL_DOCS else None


def _docs(entries: NDArray[np.void]) -> NDArray[np.int64]:
    """A number of the doc of each entry."""
    import numpy as np

    return np.asarray(entries["task"].astype(np.int64) << 32 | entries["doc"], dtype=np.int64)


def _first_of_doc(cached: _Cached) -> NDArray[np.bool_]:
    """Which entries are the first of their doc: those of others rest on nothing but the supplier's own."""
    import numpy as np

    docs = _docs(cached.entries)
    first = np.zeros(len(docs), dtype=bool)
    first[np.unique(docs, return_index=True)[1]] = True
    return first if cached.folded is None else first & ~np.isin(docs, cached.folded.learnt.known["doc"])


def _key(row: Sequence[Any]) -> tuple[int, int, int, int]:
    """What makes two entries the same doc in the same round."""
    return row[1], row[2], row[3], row[4]


def _ms(at: datetime) -> int:
    return (at - _BEGINNING) // _MS
