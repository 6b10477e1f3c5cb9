"""Folders for files, on this machine or wherever fsspec reaches: S3 and, by packages of their own, others.

Whoever reads a file while it is replaced sees the old one or the new one, whole. On this machine, and where
files can be renamed, it is written under another name first; stores of objects (S3, Google Cloud, Azure) show
an object when all of it has arrived. Keys come from the environment or the machine's role, as the package for
a protocol reads them, and never stand in a message.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from testbench_dagster.core.errors import ConfigError, StoreError, TestbenchError
from testbench_dagster.core.places import LOCAL, is_url, place_problem, protocol_of
from testbench_dagster.core.text import escaped
from testbench_dagster.stores.files import alone, whole_file, writing

#: Protocols of stores that show an object when it is complete, and have no cheap way to rename one.
_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"})
_S3 = frozenset({"s3", "s3a"})
#: A store that does not answer is given up within a minute, not after the ten that are botocore's default.
_S3_PATIENCE = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
#: What variables are called whose values no message may hold.
_SECRET_NAMES = ("KEY", "SECRET", "TOKEN", "PASSWORD", "CREDENTIAL", "CONNECTION_STRING")
_LEAST_SECRET = 6  # characters: shorter values are words of any message
_REASON = 300  # characters of what a store says
_REMEDY = "check the place, that it can be reached, and the rights of the keys in this environment"
_REMEDY_HERE = "let this user write there, with room for it, or choose another place"


class Place:
    """A folder for files by its path or URL; nothing is looked up before the first use.

    ``shown`` is how it may be shown; ``local`` is the folder, None of what is elsewhere.

    Raises:
        ConfigError: it is a URL that names no place, or holds a password.
    """

    def __init__(self, where: str | Path) -> None:
        text = os.fspath(where)
        if is_url(text) and (problem := place_problem(text)):
            raise ConfigError(problem)
        self._protocol = protocol_of(text) if is_url(text) else "file"
        self.local: Path | None = None
        if self._protocol in LOCAL:
            self.local = Path(text.rpartition("://")[2]).absolute()
        self._remedy = _REMEDY if self.local is None else _REMEDY_HERE
        self.shown = text.rstrip("/") if self.local is None else str(self.local)

    def file(self, name: str) -> str:
        """How a file in it is shown."""
        return f"{self.shown}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A file of this machine to write while this lasts; then it stands whole in the place.

        Nothing is replaced where the block raises. ``name`` may have folders in it, which are made.

        Raises:
            StoreError: it cannot be written.
        """
        if self.local is not None:
            path = self.local / name
            with writing(path, self._remedy):
                path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path, self._remedy) as partial:
                yield partial
            return
        with tempfile.TemporaryDirectory(prefix="testbench-") as folder:
            partial = Path(folder, PurePosixPath(name).name)
            with writing(partial, "let TMPDIR name a folder with room for it"):
                yield partial
            with self._telling("write", name):
                self._put(partial, name)

    def store(self, name: str, data: bytes) -> None:
        """Write a small file of the place; when this returns it stands there whole and durably.

        On this machine it is this user's alone. ``name`` may have folders in it, which are made. May be
        called from several threads at once.

        Raises:
            StoreError: it cannot be written.
        """
        if self.local is not None:
            path = self.local / name
            with writing(path, self._remedy):
                _make_durable_folder(path.parent)
            with whole_file(path, self._remedy) as partial:
                _write_durably(partial, data)
            with writing(path, self._remedy):
                _sync_folder(path.parent)
            return
        with self._telling("write", name):
            at = self._at(name)
            if self._protocol in _OBJECTS:
                self._files.pipe_file(at, data)
                return
            self._renamed(at, lambda partial: self._files.pipe_file(partial, data))

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where it is not there. Raises StoreError: it cannot be read."""
        found: bytes | None = None
        with self._telling("read", name), suppress(FileNotFoundError):
            if self.local is not None:
                found = (self.local / name).read_bytes()
            else:
                found = self._files.cat_file(self._at(name))
        return found

    def remove(self, name: str) -> None:
        """Remove a file, if it is there. Raises StoreError: it cannot be removed."""
        with self._telling("remove", name), suppress(FileNotFoundError):
            if self.local is not None:
                (self.local / name).unlink()
            else:
                self._files.rm_file(self._at(name))

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder, in order; none where it is not there. Links are no folders.

        Raises:
            StoreError: it cannot be listed.
        """
        if self.local is not None:
            with self._telling("list", name), suppress(FileNotFoundError):
                inside = (self.local / name).iterdir()
                return sorted(path.name for path in inside if path.is_dir() and not path.is_symlink())
            return []
        return sorted(_last(one["name"]) for one in self._listed(name) if one["type"] == "directory")

    def written(self, name: str) -> dict[str, datetime]:
        """The files in a folder by name, no links, with when each was written; none where it is not there.

        Raises:
            StoreError: it cannot be listed.
        """
        found: dict[str, datetime] = {}
        if self.local is not None:
            with self._telling("list", name), suppress(FileNotFoundError):
                for entry in os.scandir(self.local / name):
                    with suppress(FileNotFoundError):  # it went meanwhile
                        if entry.is_file(follow_symlinks=False):
                            found[entry.name] = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
            return found
        for one in self._listed(name):
            if one["type"] == "file":
                with self._telling("list", name), suppress(FileNotFoundError):
                    found[_last(one["name"])] = self._written_at(one)
        return found

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove files, those that are there, and then their folder if it is empty; all lie in one.

        Raises:
            StoreError: one cannot be removed; others may be gone by then.
        """
        if not names:
            return
        folder = names[0].rpartition("/")[0]
        if self.local is not None or self._protocol not in _OBJECTS:
            for name in names:
                self.remove(name)
            self.remove_folder(folder)
            return
        with self._telling("remove", folder), suppress(FileNotFoundError):
            self._files.rm([self._at(name) for name in names])

    def remove_folder(self, name: str) -> None:
        """Remove a folder if it is there and empty; stores of objects have none to remove."""
        if self.local is not None:
            with suppress(OSError):  # not empty, or gone
                (self.local / name).rmdir()
        elif self._protocol not in _OBJECTS:
            with suppress(Exception):  # the same, as each package says it
                self._files.rmdir(self._at(name))

    def look(self) -> None:
        """Look whether it can be reached; that it is not there yet is fine, where writing makes it.

        Raises:
            StoreError: it cannot be reached, its bucket is not there, or its folder may not be written.
        """
        with self._telling("read", ""):
            if self.local is not None:
                with suppress(FileNotFoundError):
                    next(self.local.iterdir(), None)
                there = next(folder for folder in (self.local, *self.local.parents) if folder.exists())
                if not os.access(there, os.W_OK | os.X_OK):
                    raise PermissionError(None, f"{there} may not be written")
                return
            if self._protocol in _OBJECTS:
                self._files.ls(self._root.partition("/")[0], refresh=True)
            else:
                self._files.exists(self._root)

    @contextmanager
    def alone(self, otherwise: str) -> Iterator[None]:
        """While this lasts no other process of this machine is in here, where the place is a folder of it.

        Leftovers of writers that were killed are the caller's to remove (:meth:`clear`).

        Raises:
            StoreError: the place cannot be written.
            TestbenchError: another process is in here; with ``otherwise``.
        """
        if self.local is None:
            yield
            return
        with writing(self.local, self._remedy):
            self.local.mkdir(parents=True, exist_ok=True)
        with alone(self.local / ".lock", otherwise):
            yield

    def clear(self, name: str) -> None:
        """Remove what killed writers of a file left beside it; only while nobody else may write it."""
        if self.local is not None:
            path = self.local / name
            for left in path.parent.glob(f".{path.stem}.*{path.suffix}.partial"):
                left.unlink(missing_ok=True)

    # -- elsewhere -----------------------------------------------------------------------------------------

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return str(self._opened[1])

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The filesystem, and the place in it."""
        # 0.05 s
        import fsspec

        options: dict[str, Any] = {}
        if self._protocol in _S3:
            # what others write is to be seen, and lists of bodies are too long to be kept
            options = {"config_kwargs": _S3_PATIENCE, "use_listings_cache": False}
        try:
            fsspec.get_filesystem_class(self._protocol)
        except ImportError as error:
            extra = "; pip install 'testbench_dagster[s3]'" if self._protocol in _S3 else ""
            raise StoreError(
                f"{self.shown} needs a package that is not installed: {_reason(error)}{extra}"
            ) from None
        except ValueError:
            raise StoreError(
                f"{self.shown}: fsspec knows no protocol {self._protocol!r}; use one that it knows, such as "
                "s3, gs, az or file"
            ) from None
        files, root = fsspec.core.url_to_fs(self.shown, **options)
        return files, root

    def _put(self, local: Path, name: str) -> None:
        at = self._at(name)
        if self._protocol in _OBJECTS:
            self._files.put_file(str(local), at)
            return
        self._renamed(at, lambda partial: self._files.put_file(str(local), partial))

    def _renamed(self, at: str, write: Callable[[str], None]) -> None:
        """Write a file under another name, and then rename it."""
        folder, _, last = at.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        partial = f"{folder}/.{last}.{secrets.token_hex(4)}.partial"
        try:
            write(partial)
            self._files.mv(partial, at)
        finally:
            if self._files.exists(partial):
                self._files.rm_file(partial)

    def _listed(self, name: str) -> list[dict[str, Any]]:
        """What is in a folder elsewhere, as fsspec tells it."""
        with self._telling("list", name), suppress(FileNotFoundError):
            found: list[dict[str, Any]] = self._files.ls(self._at(name), detail=True, refresh=True)
            return found
        return []

    def _written_at(self, told: dict[str, Any]) -> datetime:
        """When a file was written: packages tell it under names of their own."""
        moment = told.get("LastModified") or told.get("last_modified")
        if not isinstance(moment, datetime):
            moment = self._files.modified(told["name"])
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    @contextmanager
    def _telling(self, what: str, name: str) -> Iterator[None]:
        """What the store has against it becomes one line; each package has exceptions of its own."""
        try:
            yield
        except TestbenchError:
            raise
        except FileNotFoundError:
            raise StoreError(self._message(what, name, "it is not there")) from None
        except Exception as error:
            raise StoreError(self._message(what, name, _reason(error))) from None

    def _message(self, what: str, name: str, reason: str) -> str:
        return f"cannot {what} {self.file(name) if name else self.shown}: {reason}; {self._remedy}"


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _write_durably(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_durable_folder(folder: Path) -> None:
    """Make a private folder and those above it that are missing; what was made survives a loss of power."""
    if folder.is_dir():
        return
    _make_durable_folder(folder.parent)
    folder.mkdir(0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _reason(error: Exception) -> str:
    """What an exception says, in one line, without the values of variables that hold keys."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = " ".join(str(said).split())
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and any(part in name.upper() for part in _SECRET_NAMES):
            text = text.replace(value, "***")
    return escaped(text.rstrip("."), _REASON)
