"""Bodies that hold several signed answers, one after the other, as pocket-relay-miner streams them.

Every part is a whole ``RelayResponse`` followed by ``||POKT_STREAM||`` (pocket-relay-miner, ``relayer``). A
separator may be cut by packets anywhere.
"""

from __future__ import annotations

from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.errors import CodecError

SEPARATOR = b"||POKT_STREAM||"
#: Longest part that is waited for; miners send about every 100 ms or 100 kB.
MAX_PART_BYTES = 64 * 1024 * 1024


class PartSplitter:
    """Cuts a body into parts while it arrives. Empty parts are left out.

    Time and memory grow with the bytes fed, however they are cut: what was searched is not searched again.
    """

    __slots__ = ("_buffer", "_max_part", "_searched")

    def __init__(self, max_part: int = MAX_PART_BYTES) -> None:
        self._buffer = bytearray()
        self._max_part = max_part
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the parts that are complete now. Raises :class:`CodecError` if one exceeds ``max_part``."""
        buffer = self._buffer
        buffer += data
        parts = []
        start, search = 0, self._searched
        while (found := buffer.find(SEPARATOR, search)) >= 0:
            parts.append(bytes(buffer[start:found]))
            start = search = found + len(SEPARATOR)
        del buffer[:start]
        self._searched = max(0, len(buffer) - len(SEPARATOR) + 1)
        if max((len(buffer), *map(len, parts))) > self._max_part:
            raise CodecError(
                f"a part of the stream has more than the allowed {counted(self._max_part, 'byte')}"
            )
        return [part for part in parts if part]

    def finish(self) -> bytes | None:
        """Return what came after the last separator, if anything: whole only if the body ended cleanly."""
        rest, self._searched = bytes(self._buffer), 0
        self._buffer.clear()
        return rest or None
