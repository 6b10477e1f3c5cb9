"""What a snapshot keeps of each score, and how a supplier's rows of a day are packed into one value.

History is kept for good, so it has to be small: a row takes some 25 bytes. Numbers are floats of 32 bits,
read back to the seven digits these hold; whole numbers stay what they are.
"""

from __future__ import annotations

import math
import sys
import zlib
from array import array
from collections.abc import Collection, Sequence
from typing import NamedTuple

import orjson

#: What the first byte of packed rows says of the rest.
_FORMAT = 1
_FLOATS = ("score", "ci_low", "ci_high", "p50_ms", "p95_ms")
_WHOLES = ("n", "n_failed")
_MOST = 2**32 - 1
Series = tuple[str | None, str | None, str | None]
"""Which score: of a task or group of tasks, or of a taxonomy's node; the others are None."""


class SnapshotRow(NamedTuple):
    """A supplier's score of a task by its primary metric and filter, or of a node of a taxonomy, on a day.

    ``task`` is None for a node, ``taxonomy`` and ``node`` for a task; a group of tasks has its name in
    ``task``. Latencies are those of calls in ms.
    """

    task: str | None
    taxonomy: str | None
    node: str | None
    metric: str | None
    filter: str | None
    score: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    n_failed: int
    p50_ms: float | None
    p95_ms: float | None


def pack_rows(rows: Sequence[SnapshotRow]) -> bytes:
    """Rows as one value; numbers that are not finite count as none.

    Names come first, each pair of metric and filter and each taxonomy once, then the columns of numbers,
    byte by byte: the first bytes of similar floats are alike.
    """
    pairs = {pair: i for i, pair in enumerate(dict.fromkeys((row.metric, row.filter) for row in rows))}
    taxonomies = {name: i for i, name in enumerate(dict.fromkeys(row.taxonomy for row in rows))}
    names = [
        [row.node if row.task is None else row.task for row in rows],
        list(pairs),
        [pairs[row.metric, row.filter] for row in rows],
        list(taxonomies),
        [taxonomies[row.taxonomy] for row in rows],
    ]
    columns = [array("f", [_number(getattr(row, name)) for row in rows]) for name in _FLOATS]
    columns += [array("I", [min(getattr(row, name), _MOST) for row in rows]) for name in _WHOLES]
    head = orjson.dumps(names)
    body = len(head).to_bytes(4, "little") + head + b"".join(map(_planes, columns))
    return bytes([_FORMAT]) + zlib.compress(body, 9)


def unpack_rows(packed: bytes, wanted: Collection[Series] | None = None) -> list[SnapshotRow]:
    """The rows that :func:`pack_rows` packed; only those of the ``wanted`` scores, None for all.

    Raises:
        ValueError: they were packed by a later version.
    """
    if packed[:1] != bytes([_FORMAT]):
        raise ValueError(
            f"the rows of a snapshot have format {packed[:1].hex() or 'none'}; this version knows {_FORMAT}"
        )
    body = zlib.decompress(packed[1:])
    start = 4 + int.from_bytes(body[:4], "little")
    names, pairs, pair_of, taxonomies, taxonomy_of = orjson.loads(body[4:start])
    n = len(names)
    columns = {}
    for kind, listed in (("f", _FLOATS), ("I", _WHOLES)):
        for name in listed:
            columns[name] = _column(kind, body[start : start + 4 * n])
            start += 4 * n
    rows = []
    for i, (name, pair, taxonomy) in enumerate(zip(names, pair_of, taxonomy_of, strict=True)):
        of_task = taxonomies[taxonomy] is None
        series = (name, None, None) if of_task else (None, taxonomies[taxonomy], name)
        if wanted is not None and series not in wanted:
            continue
        rows.append(
            SnapshotRow(
                task=series[0],
                taxonomy=series[1],
                node=series[2],
                metric=pairs[pair][0],
                filter=pairs[pair][1],
                score=_read(columns["score"][i]),
                ci_low=_read(columns["ci_low"][i]),
                ci_high=_read(columns["ci_high"][i]),
                n=int(columns["n"][i]),
                n_failed=int(columns["n_failed"][i]),
                p50_ms=_read(columns["p50_ms"][i]),
                p95_ms=_read(columns["p95_ms"][i]),
            )
        )
    return rows


def _number(value: float | None) -> float:
    if value is None or not math.isfinite(value) or abs(value) > 3.4e38:
        return math.nan
    return value


def _read(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.7g}")


def _planes(column: array[float] | array[int]) -> bytes:
    """The first bytes of all numbers, then the second ones, and so on; little-endian."""
    if sys.byteorder == "big":
        column.byteswap()
    data = column.tobytes()
    return b"".join(data[place::4] for place in range(4))


def _column(kind: str, planes: bytes) -> array[float] | array[int]:
    n = len(planes) // 4
    data = bytearray(len(planes))
    for place in range(4):
        data[place::4] = planes[place * n : (place + 1) * n]
    column = array(kind, bytes(data))
    if sys.byteorder == "big":
        column.byteswap()
    return column
