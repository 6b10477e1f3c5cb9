"""Bounded decompression of bodies that came compressed, though that was not asked for.

Servers name many things as Content-Encoding that are no compression (``utf-8``, ``aws-chunked``, nothing), or
name one and do not use it. Such bodies are taken as they are: whether they can be read is seen afterwards.
"""

from __future__ import annotations

import zlib

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_GZIP_BEGINS = b"\x1f\x8b"
#: Members of one gzip body: each costs a copy of what follows it.
MAX_MEMBERS = 64
#: How often one body may be compressed.
MAX_COMPRESSIONS = 3
#: What JSON, pages and event streams begin with.
_PLAIN_BEGINS = b"{[<d: \t\r\n"
#: What names a compression; those without a window are not understood here.
COMPRESSIONS = frozenset({*_WINDOWS, "br", "zstd", "compress", "x-compress"})


class BadEncoding(Exception):
    """A compressed body cannot be decompressed."""


class Decoder:
    """Bounded gzip or deflate decompression, of what is compressed."""

    def __init__(self, name: str) -> None:
        """``name`` is that of the compression."""
        self._name = name
        self._window = _WINDOWS.get(name, zlib.MAX_WBITS)
        self._zlib = zlib.decompressobj(self._window)
        self._held = b""  # the first byte, until there is a second
        self._members = 1
        self._begun = self._plain = False

    def feed(self, data: bytes, limit: int) -> bytes:
        """Decompress at most ``limit`` bytes of output; what exceeds it is thrown away.

        Raises:
            BadEncoding: it is not compressed as was said.
        """
        if not self._begun:
            data = self._held + data
            if len(data) < len(_GZIP_BEGINS):
                self._held = data
                return b""
            self._begin(data)
        if self._plain:
            return data
        found: list[bytes] = []
        left = limit
        try:
            while data and left > 0:
                piece = self._zlib.decompress(data, left)
                found.append(piece)
                left -= len(piece)
                data = self._zlib.unused_data if self._zlib.eof else b""
                if not self._is_gzip or not data.startswith(_GZIP_BEGINS):
                    break  # padding behind the end
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise BadEncoding(f"the compressed body has more than {MAX_MEMBERS} members")
                self._zlib = zlib.decompressobj(self._window)
        except zlib.error as exc:
            raise BadEncoding(str(exc)) from exc
        return found[0] if len(found) == 1 else b"".join(found)

    def finish(self) -> bytes:
        """What is left at the end of the body.

        Raises:
            BadEncoding: the compressed body is incomplete.
        """
        rest = b"" if self._begun else self._held
        if rest:
            self._begin(rest)
        if self._begun and not self._plain and not self._zlib.eof:
            raise BadEncoding("the compressed body is incomplete")
        return rest

    @property
    def _is_gzip(self) -> bool:
        return self._window > zlib.MAX_WBITS

    def _begin(self, data: bytes) -> None:
        self._begun = True
        readable = data[0] in _PLAIN_BEGINS and _is_text(data)
        if self._name not in _WINDOWS:
            if not readable:
                raise BadEncoding(f"content encoding {self._name!r} was not asked for and is not known")
            self._plain = True
        elif self._is_gzip:
            self._plain = readable and not data.startswith(_GZIP_BEGINS)
        elif data[0] & 0x0F != 8:
            # "deflate" without its zlib header, or not compressed at all
            self._plain = readable
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)


class Chain:
    """Decompression of what was compressed several times."""

    def __init__(self, names: list[str]) -> None:
        """``names`` are those of the compressions, in the order in which they were used."""
        self._decoders = [Decoder(name) for name in reversed(names)]

    def feed(self, data: bytes, limit: int) -> bytes:
        """As :meth:`Decoder.feed`; ``limit`` holds for what each of them gives."""
        for decoder in self._decoders:
            data = decoder.feed(data, limit) if data else b""
        return data

    def finish(self) -> bytes:
        """As :meth:`Decoder.finish`."""
        rest = b""
        for decoder in self._decoders:
            fed = decoder.feed(rest, len(rest) + 1) if rest else b""
            rest = fed + decoder.finish()
        return rest


def decoder_for(encoding: str | None) -> Decoder | Chain | None:
    """What decompresses a body with this Content-Encoding; None where it is taken as it is.

    Of several encodings the compressions count.

    Raises:
        BadEncoding: it is compressed more than :data:`MAX_COMPRESSIONS` times.
    """
    if not encoding:
        return None
    names = [name.strip().lower() for name in encoding[:400].split(",")]
    found = [name for name in names if name in COMPRESSIONS]
    if len(found) > MAX_COMPRESSIONS:
        raise BadEncoding(f"the body is compressed more than {MAX_COMPRESSIONS} times")
    if len(found) > 1:
        return Chain(found)
    return Decoder(found[0]) if found else None


def _is_text(data: bytes) -> bool:
    """Whether the beginning of a body is text, which raw deflate hardly ever is."""
    return all(byte >= 0x20 or byte in b"\t\r\n" for byte in data[:64])
