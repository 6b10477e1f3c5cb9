"""The zip file of a bundle: written with the same bytes for the same content, read without trusting it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from testbench_dagster.core.wording import counted
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.layout import BundleError
from testbench_dagster.stores.files import writing

_CHUNK = 1 << 20
_END = struct.Struct("<4s4H2LH")  # zip's end of central directory record, without a comment
_LOCATOR_BYTES = 20
_ZIP64_LOCATOR = b"PK\x06\x07"


@dataclass(frozen=True)
class Member:
    """A file of a bundle: SHA-256 and size of its uncompressed bytes."""

    sha256: str
    size: int


def json_line(value: Any) -> bytes:
    """One record: ASCII only, NaN and infinities as Python writes and reads them.

    Keys stay in their order, which the hash of a request as sent depends on.
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def json_text(value: Any) -> bytes:
    """A file for people to read too."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True).encode() + b"\n"


class BundleWriter:
    """Writes one bundle; the file takes its name when the context ends without an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self.members: dict[str, Member] = {}

    def __enter__(self) -> BundleWriter:
        with writing(self._path):
            self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self._path):
            try:
                self._zip.close()
                if kind is None:
                    _read_end(self._partial)  # what could not be read must not be written
                    with self._partial.open("rb") as file:
                        os.fsync(file.fileno())
                    self._partial.replace(self._path)
            finally:
                self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lines(self, name: str) -> Iterator[Lines]:
        """Write a file record by record."""
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the same bytes whenever it is written
        info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
        with writing(self._path), self._zip.open(info, "w", force_zip64=True) as file:
            lines = Lines(file)
            yield lines
        self.members[name] = Member(lines.digest.hexdigest(), lines.size)

    def whole(self, name: str, data: bytes) -> None:
        """Write a file at once."""
        with self.lines(name) as file:
            file.raw(data)


class Lines:
    """One file of a bundle while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, record: Any) -> None:
        """Append one record."""
        self.raw(json_line(record))

    def raw(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


class BundleReader:
    """Reads a bundle that anybody may have written.

    Opening it reads every file once, within bounds, and takes its hash. Use as a context manager.

    Raises:
        BundleError: it is no zip file as :class:`BundleWriter` writes it, holds files that do not belong
            into a bundle, is damaged, or larger than allowed.
    """

    def __init__(self, path: Path, max_bytes: int = layout.MAX_TOTAL_MB * layout.MEBIBYTE) -> None:
        self.path = path
        _read_end(path)
        with self._trouble():
            self._zip = zipfile.ZipFile(path)
        try:
            self.members = self._measured(max_bytes)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> BundleReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()

    def whole(self, name: str) -> bytes:
        """The bytes of a small file."""
        member = self._member(name)
        if member.size > layout.MAX_WHOLE_BYTES:
            raise BundleError(f"{self.path}: {name} is too large ({counted(member.size, 'byte')})")
        with self._trouble(name), self._zip.open(name) as file:
            return file.read(layout.MAX_WHOLE_BYTES)

    def json(self, name: str) -> dict[str, Any]:
        """A small file as a JSON object."""
        return self._object(self.whole(name), name)

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of a file, one after the other."""
        self._member(name)
        number = 0
        with self._trouble(name), self._zip.open(name) as raw, io.BufferedReader(_Raw(raw), _CHUNK) as file:
            while line := file.readline(layout.MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > layout.MAX_LINE_BYTES:
                    raise BundleError(f"{self.path}: line {number} of {name} is too long")
                yield self._object(line, f"line {number} of {name}")

    def _member(self, name: str) -> Member:
        try:
            return self.members[name]
        except KeyError:
            raise BundleError(f"{self.path}: {name} is missing") from None

    def _object(self, data: bytes, where: str) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            kind = "too deep" if isinstance(error, RecursionError) else str(error)[:200]
            raise BundleError(f"{self.path}: {where} is no valid JSON: {kind}") from None
        if not isinstance(value, dict):
            raise BundleError(f"{self.path}: {where} is no JSON object")
        return value

    def _measured(self, max_bytes: int) -> dict[str, Member]:
        """Hash and size of every file, none of them believed from the directory."""
        members: dict[str, Member] = {}
        total = 0
        infos = self._zip.infolist()
        if len(infos) > layout.MAX_MEMBERS:
            raise BundleError(f"{self.path} holds {counted(len(infos), 'file')}, more than a bundle may")
        for info in infos:
            name = info.filename
            if not layout.is_member(name):
                raise BundleError(f"{self.path} is no evidence bundle: it holds a file {name[:100]!r}")
            if name in members:
                raise BundleError(f"{self.path} holds {name} twice")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BundleError(f"{self.path}: {name} is encrypted or compressed in an unknown way")
            digest, size = hashlib.sha256(), 0
            with self._trouble(name), self._zip.open(info) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    total += len(chunk)
                    if total > max_bytes:
                        raise BundleError(
                            f"{self.path} unpacks to more than {max_bytes // layout.MEBIBYTE} MB; "
                            "if you trust where it comes from, raise --max-mb"
                        )
            members[name] = Member(digest.hexdigest(), size)
        return members

    @contextlib.contextmanager
    def _trouble(self, name: str | None = None) -> Iterator[None]:
        where = f"{self.path}: {name}" if name else str(self.path)
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
            raise BundleError(f"{where} is damaged: {str(error)[:200]}") from None
        except (RuntimeError, UnicodeDecodeError, ValueError) as error:  # zipfile's, on odd headers
            raise BundleError(f"{where} cannot be read: {str(error)[:200]}") from None
        except OSError as error:
            raise BundleError(f"{where} cannot be read: {error.strerror or error}") from None


class _Raw(io.RawIOBase):
    """A member of a zip file as a raw stream, so that lines are read through a bounded buffer."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _read_end(path: Path) -> None:
    """Look at the last bytes, which say how large the directory is that zipfile would read at once."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
            tail = file.read()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    if tail[: len(_ZIP64_LOCATOR)] == _ZIP64_LOCATOR and size > _END.size + _LOCATOR_BYTES:
        raise BundleError(
            f"{path} is larger than 4 GiB or a zip file of another kind; name fewer tasks or docs"
        )
    signature, _, _, _, count, directory, _, comment = (
        _END.unpack(tail[-_END.size :]) if len(tail) >= _END.size else (b"", 0, 0, 0, 0, 0, 0, 0)
    )
    if signature != b"PK\x05\x06" or comment:
        raise BundleError(f"{path} is no evidence bundle, or its end is missing")
    if directory > layout.MAX_DIRECTORY_BYTES or count > layout.MAX_MEMBERS:
        raise BundleError(f"{path} holds more files than a bundle may")
