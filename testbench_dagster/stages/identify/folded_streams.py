"""Folded scores as they are stored: arrays of records, packed and compressed."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from testbench_dagster.core.records.identity import FoldedChange, FoldedStream
from testbench_dagster.identity import OF_SCORES, Change, FoldedScores
from testbench_dagster.identity.folded_scores import BLOCK
from testbench_dagster.identity.score_differences import FITTED_ON, KNOWN, Learnt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TASK = [("new", "<i8"), ("last_bet", "<i8")]
_LEVELS = [("fall", "<f8"), ("rise", "<f8")]
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def packed(rows: NDArray[np.void]) -> bytes:
    """Records of an array, compressed: all first bytes, then all second ones, which are alike."""
    import numpy as np

    as_bytes = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), rows.itemsize)
    return zlib.compress(as_bytes.T.tobytes())


def unpacked(data: bytes, of: Sequence[tuple[object, ...]]) -> NDArray[np.void]:
    """The records that :func:`packed` made bytes of; ``of`` lists their fields."""
    import numpy as np

    dtype = np.dtype(list(of))
    as_bytes = np.frombuffer(zlib.decompress(data), np.uint8).reshape(dtype.itemsize, -1)
    return np.frombuffer(as_bytes.T.tobytes(), dtype).copy()


def stored(folded: FoldedScores, answered: Collection[int]) -> FoldedStream:
    """What is stored of folded scores; ``answered`` are the places of tasks of which a doc was answered."""
    import numpy as np

    tasks = np.zeros(len(folded.last_bet), _TASK)
    tasks["last_bet"] = folded.last_bet
    tasks["new"][: len(folded.learnt.new)] = folded.learnt.new
    levels = np.zeros(folded.levels.shape[1], _LEVELS)
    levels["fall"], levels["rise"] = folded.levels
    return FoldedStream(
        n=folded.n,
        began_at=_BEGINNING + folded.began * _MS,
        last_at=_BEGINNING + folded.last * _MS,
        period_days=folded.period,
        n_first=folded.n_first,
        answered=tuple(sorted(answered)),
        docs=packed(folded.learnt.known),
        fitted=packed(folded.learnt.fitted),
        tasks=packed(tasks),
        levels=packed(levels),
        blocks=packed(folded.blocks),
        change=None if folded.change is None else _stored_change(folded.change),
    )


def restored(supplier: str, part: FoldedStream) -> FoldedScores:
    """The folded scores of a supplier as they were stored."""
    import numpy as np

    tasks, levels = unpacked(part.tasks, _TASK), unpacked(part.levels, _LEVELS)
    return FoldedScores(
        began=(part.began_at - _BEGINNING) // _MS,
        period=part.period_days,
        n_first=part.n_first,
        learnt=Learnt(
            unpacked(part.docs, KNOWN), tasks["new"].astype(np.int64), unpacked(part.fitted, FITTED_ON)
        ),
        levels=np.array([levels["fall"], levels["rise"]]),
        blocks=unpacked(part.blocks, BLOCK),
        last_bet=tasks["last_bet"].astype(np.int64),
        change=None if part.change is None else _change(supplier, part.change),
    )


def _stored_change(change: Change) -> FoldedChange:
    return FoldedChange(
        at=change.at,
        before_at=change.before_at,
        detected_at=change.detected_at,
        log_e=change.log_e,
        arl=change.arl,
        observations=change.observations,
        since_change=change.since_change,
        null_rate=change.null_rate,
        rate_after=change.rate_after,
        direction=change.direction,
        reason=change.wording,
    )


def _change(supplier: str, part: FoldedChange) -> Change:
    return Change(
        supplier=supplier,
        kind="score",
        at=part.at,
        before_at=part.before_at,
        detected_at=part.detected_at,
        log_e=part.log_e,
        arl=part.arl,
        stream=OF_SCORES,
        observations=part.observations,
        since_change=part.since_change,
        null_rate=part.null_rate,
        rate_after=part.rate_after,
        direction=part.direction,
        certain=True,
        wording=part.reason,
    )
