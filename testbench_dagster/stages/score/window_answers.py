"""What became of each doc of a window: what pages of answers are chosen and counted from.

Made of the samples that a window's rows are made of, and cached with them by the stage that scores, packed:
some five bytes a doc. So a page needs the texts of its own docs only, whatever the size of the task. Like
cached rows they hold as long as nothing they follow from changes; else they are made of the facts again.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple

import orjson

from testbench_dagster.core.doc_answer import AnswerKind
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.windows import WindowAnswersRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import REFUSED, Sample, Window
from testbench_dagster.scoring.failures import Failures, failures_of
from testbench_dagster.scoring.rows import counted_samples, primary_pair, value_of
from testbench_dagster.stores.documents import document_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
#: Kinds of docs by the letter that stands for them in what is packed.
_LETTERS = {
    AnswerKind.RIGHT: "r",
    AnswerKind.WRONG: "w",
    AnswerKind.GRADED: "g",
    AnswerKind.FAILED: "f",
    AnswerKind.OPEN: "o",
    AnswerKind.VOID: "v",
    AnswerKind.UNSCORED: "u",
}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}
#: Characters of a value that is a text (a signature): enough to tell it from others.
_TEXT = 16


class IndexedDoc(NamedTuple):
    """A doc of a window by the task's primary metric and filter: what it counts as, and where its facts are.

    ``value`` is a text where the metric's values are (signatures, cut to what tells them apart), None where
    there is none. ``at_ms`` is when it was answered, or last asked, or left behind, in milliseconds since
    1970; ``at`` is the same. ``fault`` is the last one of a doc that was not answered.
    """

    doc_id: int
    kind: AnswerKind
    value: float | str | None
    truncated: bool
    epoch: int
    round: int
    position: int
    at_ms: int
    fault: Fault | None

    @property
    def at(self) -> datetime:
        """When it was answered, or last asked."""
        return _EPOCH + self.at_ms * _MS

    @property
    def place(self) -> tuple[int, int, int]:
        """Where the doc stands in what is asked, as :attr:`~testbench_dagster.core.window.Sample.place`."""
        return (self.epoch, self.position, self.doc_id)


@dataclass(frozen=True)
class TaskDocs:
    """What became of the docs of a supplier's window of one task.

    ``open``: those that count as wrong until they close; a doc that is open by our own faults only is not
    among them. ``refused``: the supplier refuses requests of the task's form altogether.
    """

    docs: Sequence[IndexedDoc]
    open: Collection[IndexedDoc]
    refused: bool

    @classmethod
    def from_samples(
        cls, spec: TaskSpec, registration: Registration, samples: Sequence[Sample], *, refused: bool
    ) -> TaskDocs:
        """The docs of the samples that a window was made of."""
        docs = indexed_docs(spec, registration, samples)
        is_open = {doc for doc, sample in zip(docs, samples, strict=True) if sample.open}
        return cls(docs, is_open, refused)

    @classmethod
    def from_row(cls, docs: Sequence[IndexedDoc], row: Window) -> TaskDocs | None:
        """The docs that were packed with a primary row; None where they do not tell which of them are open.

        That is where some are and others are open by our own faults.
        """
        waiting = [doc for doc in docs if doc.kind is AnswerKind.OPEN]
        if row.n_open not in (0, len(waiting)):
            return None
        return cls(docs, frozenset(waiting if row.n_open else ()), row.status == REFUSED)


def indexed_docs(
    spec: TaskSpec, registration: Registration, samples: Iterable[Sample]
) -> tuple[IndexedDoc, ...]:
    """What became of the docs of a window, in the order given."""
    pair = primary_pair(spec, registration)
    found = counted_samples(spec, registration, list(samples), pair)
    values = [value for s in found if s.scored and (value := value_of(s, pair)) is not None]
    failures = failures_of(spec, registration, pair[0], values)
    return tuple(_indexed(sample, value_of(sample, pair), failures) for sample in found)


def _indexed(sample: Sample, raw: Any, failures: Failures) -> IndexedDoc:
    value: float | str | None = None
    if isinstance(raw, (bool, int, float)):
        value = float(raw)
    elif isinstance(raw, str):
        value = raw[:_TEXT]
    answered = sample.scored or sample.fault.answered
    return IndexedDoc(
        sample.doc_id,
        _kind(sample, value, failures),
        value,
        sample.scored and sample.fault.row.cut_short,
        sample.epoch,
        sample.round,
        sample.position,
        (sample.at - _EPOCH) // _MS,
        None if answered else sample.fault,
    )


def _kind(sample: Sample, value: float | str | None, failures: Failures) -> AnswerKind:
    if sample.scored:
        if value is not None and value == failures.best:
            return AnswerKind.RIGHT
        if value is not None and value == failures.worst:
            return AnswerKind.WRONG
        return AnswerKind.GRADED
    if sample.failed:
        return AnswerKind.FAILED
    if sample.void:
        return AnswerKind.VOID
    return AnswerKind.UNSCORED if sample.state.value == "scored" else AnswerKind.OPEN


# -- packed -----------------------------------------------------------------------------------------------


def answers_id(supplier: str, task: str) -> str:
    """The id of the document with a supplier's packed docs of a task."""
    return document_id("window_answers", supplier, task)


def answers_record(
    supplier: Supplier,
    registration: Registration,
    fingerprint: str,
    since: int,
    docs: Sequence[IndexedDoc],
) -> WindowAnswersRecord:
    """What is stored of the docs of a window, beside rows of that fingerprint that hold since then."""
    return WindowAnswersRecord(
        id=answers_id(supplier.key, registration.task),
        supplier=supplier.key,
        service=supplier.service,
        task=registration.task,
        task_hash=registration.task_hash,
        fingerprint=fingerprint,
        since=since,
        docs=pack(docs),
    )


def pack(docs: Sequence[IndexedDoc]) -> bytes:
    """Docs by ascending id as compressed columns."""
    columns = [
        _steps([d.doc_id for d in docs]),
        "".join(_LETTERS[d.kind] for d in docs),
        _shared([d.value for d in docs]),
        [i for i, d in enumerate(docs) if d.truncated],
        _shared([d.epoch for d in docs]),
        _shared([d.round for d in docs]),
        _shared([d.position for d in docs]),
        _steps([d.at_ms for d in docs]),
        [[i, d.fault.value] for i, d in enumerate(docs) if d.fault is not None],
    ]
    return zlib.compress(orjson.dumps(columns), 6)


def unpack(packed: bytes) -> list[IndexedDoc]:
    """The docs that :func:`pack` packed."""
    ids, letters, values, cut, epochs, rounds, positions, times, faults = orjson.loads(
        zlib.decompress(packed)
    )
    n = len(letters)
    truncated = [False] * n
    fault: list[Fault | None] = [None] * n
    for i in cut:
        truncated[i] = True
    for i, name in faults:
        fault[i] = Fault(name)
    return list(
        map(
            IndexedDoc,
            accumulate(ids),
            map(_KINDS.__getitem__, letters),
            _each(values, n),
            truncated,
            _each(epochs, n),
            _each(rounds, n),
            _each(positions, n),
            accumulate(times),
            fault,
        )
    )


def unpacked_values(packed: bytes) -> dict[int, float | str]:
    """The values of packed docs by doc id, of those that have one: what peers are compared by."""
    ids, letters, values, *_ = orjson.loads(zlib.decompress(packed))
    known = zip(accumulate(ids), _each(values, len(letters)), strict=True)
    return {doc: value for doc, value in known if value is not None}


def _steps(numbers: Sequence[int]) -> list[int]:
    """The first number, and how far each is from the one before it: small numbers."""
    return [b - a for a, b in zip((0, *numbers), numbers, strict=False)]


def _shared(values: Sequence[Any]) -> Any:
    """The values, or the one that all of them are in a list of its own."""
    return [[values[0]]] if values and all(value == values[0] for value in values) else list(values)


def _each(values: Any, n: int) -> Sequence[Any]:
    return values[0] * n if len(values) == 1 and isinstance(values[0], list) else values
