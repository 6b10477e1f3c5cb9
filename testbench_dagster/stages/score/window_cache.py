"""Cached windows: the rows of a supplier as they were computed last, and how to tell that they still hold.

A pure cache of what :mod:`testbench_dagster.scoring.rows` makes of the facts. A cached task is used while
three things are so: nobody took it out, as whoever writes facts of it does before (see
:mod:`testbench_dagster.coordination.writing`); supplier, task, registration and settings are those it was
made with; and no sample has grown too old since, nor any doc so old that it closes. Rows that answers to come
may change without a fact of their task, as witnesses or as peers, do not hold at all. Anything else is
computed from the facts, with the same result.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from testbench_dagster.core import versions
from testbench_dagster.core.columns import Origin, columns_of
from testbench_dagster.core.records.windows import WindowRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import Slots
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.core.window import Sample, Window
from testbench_dagster.scoring.delivered import DeliveredDoc
from testbench_dagster.scoring.rows import known_beforehand
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import content_hash

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: What a cached row holds; the rest is said by the supplier, the task and the registration that it is bound
#: to, or by others' answers.
_STORED = tuple(name for name, field in columns_of(Window).items() if field.column.origin is Origin.ANSWERS)
_TIMES = tuple(name for name in _STORED if columns_of(Window)[name].kind is datetime)


@dataclass(frozen=True)
class Computed:
    """The rows of a supplier and task, the primary first, and when they end to be so; None for never.

    ``docs`` are those of the primary row, for comparing members of an identity group; ``tally`` is for what
    is said of the supplier over several tasks. ``samples`` are what all of them were made of.
    """

    rows: Sequence[Window]
    until: datetime | None
    docs: Sequence[DeliveredDoc]
    tally: Tally
    samples: Sequence[Sample]


class Tally(NamedTuple):
    """What is counted of a supplier's attempts at a task, in a form in which those of several tasks add up.

    ``minutes`` are as :meth:`~testbench_dagster.scoring.reliability.Minutes.packed` writes them, ``asked``
    and ``at_once`` as in :class:`~testbench_dagster.scoring.reliability.Calls`.
    """

    minutes: bytes
    asked: int
    at_once: int


class WindowCache:
    """What is cached of one supplier, as read from the store at once."""

    def __init__(
        self, document: WindowRecord | None, supplier: Supplier, now: datetime, deadline_s: float
    ) -> None:
        self._supplier = supplier
        self._now = microseconds(now)
        same = document is not None and document.subject == subject(supplier, deadline_s)
        self._entries: dict[str, dict[str, Any]] = (
            {entry["task"]: entry for entry in document.rows} if same and document is not None else {}
        )

    def holds(self, task: str, fingerprint: str) -> bool:
        """Whether what is cached of a task is right at the instant asked for."""
        entry = self._entries.get(task)
        return (
            entry is not None
            and entry["fingerprint"] == fingerprint
            and entry["since"] <= self._now
            and (entry["until"] is None or self._now < entry["until"])
        )

    def since(self, task: str) -> int:
        """Since when what is cached of a task that :meth:`holds` does, in microseconds since 1970."""
        return int(self._entries[task]["since"])

    def docs(self, task: str) -> list[DeliveredDoc]:
        """The docs behind the primary row of a task that :meth:`holds` and has them (:meth:`lacks_docs`)."""
        return [DeliveredDoc(*doc) for doc in orjson.loads(zlib.decompress(self._entries[task]["docs"]))]

    def lacks_docs(self, task: str) -> bool:
        """Whether the rows of a task were cached when nobody needed the docs behind them."""
        return task in self._entries and self._entries[task]["docs"] is None

    def tally(self, task: str) -> Tally:
        """The tally of a task that :meth:`holds`."""
        entry = self._entries[task]
        return Tally(entry["minutes"], entry["asked"], entry["at_once"])

    def rows(self, spec: TaskSpec, registration: Registration, *, primary_only: bool = False) -> list[Window]:
        """The rows of a task that :meth:`holds`, the primary first."""
        entry, supplier = self._entries[spec.name], self._supplier
        implied = known_beforehand(supplier, spec, registration)
        found = [_window(orjson.loads(entry["primary"]), implied, primary=True)]
        if not primary_only:
            found += [_window(row, implied, primary=False) for row in orjson.loads(entry["others"])]
        return found


def entry(task: str, fingerprint: str, computed: Computed, now: datetime, *, grouped: bool) -> dict[str, Any]:
    """What to cache of a task's rows as computed at an instant: the store's form of them.

    Of a supplier in an identity group (``grouped``) the docs behind them are cached as well.
    """
    primary, *others = computed.rows
    return {
        "task": task,
        "fingerprint": fingerprint,
        "since": microseconds(now),  # looking from earlier, older samples count
        "until": None if computed.until is None else microseconds(computed.until),
        "primary": _json(_values(primary)),
        "others": _json([_values(row) for row in others]),
        "docs": zlib.compress(orjson.dumps([list(doc) for doc in computed.docs]), 1) if grouped else None,
        "minutes": computed.tally.minutes,
        "asked": computed.tally.asked,
        "at_once": computed.tally.at_once,
    }


def subject(supplier: Supplier, deadline_s: float) -> str:
    """Changes with whatever of a supplier its rows depend on; ``deadline_s`` is that of its relays."""
    cut = None if supplier.cut_at is None else microseconds(supplier.cut_at)
    parts = [supplier.service, supplier.address, supplier.api, supplier.echo_logprobs, cut, deadline_s]
    return content_hash(parts)[:24]


def fingerprints(
    workspace: Workspace, tasks: Sequence[tuple[TaskSpec, Registration]], wanted: Mapping[str, Slots]
) -> Mapping[str, str]:
    """By task what changes with whatever its rows follow from besides facts; the ``wanted`` slots."""
    return {
        spec.name: _fingerprint(workspace, spec, registration, wanted[spec.name])
        for spec, registration in tasks
    }


def _fingerprint(workspace: Workspace, spec: TaskSpec, registration: Registration, wanted: Slots) -> str:
    parts = [
        versions.WINDOWS.number,
        _STORED,
        [spec.name, spec.group, spec.framework, spec.metric, spec.filter, spec.cluster, spec.worst],
        wanted.docs,
        *([] if wanted.since is None else [[wanted.since, wanted.draw]]),
        spec.max_age(workspace.config.settings.sampling.max_age_days) // _MICROSECOND,
        workspace.config.settings.sampling.window,
        workspace.config.settings.planning.occasions_minutes,
        [registration.task_hash, scorer_version(registration), registration.config_hash],
        [registration.n_docs, registration.flags.to_document()],
        *([] if spec.samples is None or spec.samples.ids is None else [sorted(spec.samples.ids)]),
    ]
    return content_hash(parts)[:24]


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def _values(row: Window) -> list[Any]:
    return [getattr(row, name) for name in _STORED]


def _json(value: Any) -> bytes:
    """JSON in which every number comes back as it was; times as microseconds."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return microseconds(value)
    if isinstance(value, Mapping):
        return dict(value)
    return float(value)  # numpy's


def _window(values: Sequence[Any], implied: Mapping[str, Any], *, primary: bool) -> Window:
    row = {**implied, **dict(zip(_STORED, values, strict=True)), "primary": primary}
    for name in _TIMES:
        if row[name] is not None:
            row[name] = _EPOCH + timedelta(microseconds=row[name])
    # not by __init__: of half a million frozen rows it takes more time than all the rest
    window = Window.__new__(Window)
    vars(window).update(row)
    return window
