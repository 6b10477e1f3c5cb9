"""Connections to Dagster's PostgreSQL: what keeps them from being made is one line, and outages are sat out.

Dagster tries for twelve seconds and then raises a page of stack. Here a server that is away is waited for,
:data:`PATIENCE_S` in all, so that a run outlives its restart. What no waiting mends (a wrong password, a
missing database) is told at once. Both are errors of this package, which Dagster does not try again.

Belongs here: how connections are made, by the events that SQLAlchemy publishes for it. Does not: what is
stored (:mod:`.storage`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.stores.uris import without_password

POSTGRES_ENV = "DAGSTER_POSTGRES_URL"
PATIENCE_S = 60.0
"""How long a server that is away is waited for, counted from when that was first seen."""
_CONNECT_S = 10  # of one try, unless the URL says otherwise: a host that swallows packets never answers
_LONGEST_PAUSE_S = 2.0
#: By it Dagster's connections are known from those to the dataset store, which may be in the same database.
_MARK = {"fallback_application_name": "testbench-dagster"}
#: What a server says that refuses now and takes connections soon.
_FULL = ("too many clients", "connection slots")
_SOON = ("starting up", "shutting down", "recovery", *_FULL)

_log = logging.getLogger(__name__)


class PostgresServer:
    """The server that ``DAGSTER_POSTGRES_URL`` names, and since when it is away."""

    def __init__(self, url: URL, shown: str) -> None:
        self.url = url.update_query_dict(_MARK)
        self.shown = shown
        self._away_since: float | None = None
        self._at_once = False
        self._lock = threading.Lock()

    @property
    def storage_url(self) -> str:
        """What Dagster's storage is given, with the password."""
        return self.url.render_as_string(hide_password=False)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While this lasts nothing is waited for."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def connect(self, dialect: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        """A new connection.

        Raises:
            ConfigError: the server refuses, or is not there and nothing is to be waited for.
            StoreError: it was waited for in vain.
        """
        options.setdefault("connect_timeout", _CONNECT_S)
        pause = 0.25
        while True:
            try:
                connection = dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                reason = _first_line(error)
            else:
                self._back()
                return connection
            if "FATAL" in reason and not any(words in reason for words in _SOON):
                self._refuses(reason)
            if self._at_once:
                raise ConfigError(f"{self._named} cannot be reached: {reason}; {self._remedy}") from None
            if (away := self._away_for(reason)) >= PATIENCE_S:
                if any(words in reason for words in _FULL):
                    raise StoreError(
                        f"{self._named} takes no more connections: {reason} (waited {PATIENCE_S:.0f} s); "
                        "raise its max_connections, or let fewer processes run at once"
                    ) from None
                self.gave_up(f"{reason} (waited {PATIENCE_S:.0f} s)")
            time.sleep(min(pause, _LONGEST_PAUSE_S, PATIENCE_S - away + 0.01))
            pause *= 2

    def gave_up(self, reason: str) -> NoReturn:
        """Tell that it is away while somebody works with it.

        Raises:
            StoreError: always.
        """
        raise StoreError(
            f"{self._named} went away: {reason}; start it again: the next run goes on, for what was relayed "
            "and scored is stored and not asked twice"
        ) from None

    def _refuses(self, reason: str) -> NoReturn:
        remedy = self._remedy
        if "does not exist" in reason and "database" in reason:
            remedy = f"create it (createdb {self.url.database}), or name another in {POSTGRES_ENV}"
        elif "authentication failed" in reason or "does not exist" in reason:
            remedy = f"correct user and password in {POSTGRES_ENV}"
        raise ConfigError(f"{self._named} cannot be used: {reason}; {remedy}") from None

    def _away_for(self, reason: str) -> float:
        """Seconds since it was first seen to be away; the first who sees that tells."""
        with self._lock:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                _log.warning("%s is away (%s): waiting up to %.0f s", self._named, reason, PATIENCE_S)
            return now - self._away_since

    def _back(self) -> None:
        with self._lock:
            if self._away_since is not None:
                away = time.monotonic() - self._away_since
                _log.warning("%s is back after %.0f s", self._named, away)
                self._away_since = None

    @property
    def _named(self) -> str:
        return f"Dagster's storage {self.shown}"

    @property
    def _remedy(self) -> str:
        return f"start the server, or correct {POSTGRES_ENV} (without it Dagster stores in SQLite)"


_servers: dict[str, PostgresServer] = {}


def postgres_server(url: str) -> PostgresServer:
    """What is known of the server that a URL names; from here on connections to it are made as told above.

    Raises:
        ConfigError: the URL names no PostgreSQL database.
    """
    try:
        parsed = make_url(psycopg2_url(url))
        usable = parsed.drivername == "postgresql+psycopg2"
    except (ArgumentError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(
            f"{POSTGRES_ENV} {without_password(url)} is not usable; write "
            "postgresql://user:password@host:5432/database"
        )
    if not _servers:
        sa.event.listen(Engine, "do_connect", _connect)
        sa.event.listen(Engine, "handle_error", _tell_of_lost_connections)
    return _servers.setdefault(url, PostgresServer(parsed, without_password(url)))


def psycopg2_url(url: str) -> str:
    """Name the driver: psycopg 3, SQLAlchemy's newer default, breaks dagster-postgres."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme.split("+")[0] in ("postgres", "postgresql"):
        return f"postgresql+psycopg2://{rest}"
    return url


def _connect(dialect: Any, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
    """How SQLAlchemy connects to one of the servers; None: as ever."""
    if dialect.driver != "psycopg2":
        return None
    for server in _servers.values():
        _, wanted = dialect.create_connect_args(server.url)
        if wanted.items() <= options.items():
            return server.connect(dialect, arguments, options)
    return None


def _tell_of_lost_connections(context: Any) -> None:
    """A connection that broke in the midst of a statement: nobody knows whether that was done.

    One that was only asked whether it is still there is replaced by a new one.
    """
    if not context.is_disconnect or context.is_pre_ping or context.engine is None:
        return
    for server in _servers.values():
        if context.engine.url == server.url:
            server.gave_up(_first_line(context.original_exception))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__
