"""What each process goes by, stated in the store: none acts under another configuration than the code server.

A code server states its configuration and its packages while it lives, and so does whoever runs an evaluation
from a terminal. Who is about to act compares its own with that of the code server that has been there
longest, and leaves it where they differ, with a sentence that says where. Two processes under different
settings would else undo each other's plans for ever: a plan names the settings it was made under.

Belongs here: statements, who they bind, and what is said of a difference. Does not: what goes into them
(:mod:`testbench_dagster.config.fingerprint`, :mod:`.packages`), and what is refused.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from testbench_dagster.config.fingerprint import fingerprint
from testbench_dagster.coordination.heartbeats import DEFAULT_TTL_S, is_gone
from testbench_dagster.coordination.processes import (
    boot_clock,
    host_name,
    machine,
    process_started,
    shares_boot_clock,
)
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.records.coordination import StatementRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.stores.documents import DocumentStore, typed

CODE_SERVER, RUN, REFUSED = "code server", "run", "refused"
"""Roles: one who serves the code to Dagster, an evaluation in a terminal, a machine whose run was refused."""

#: How often a code server looks whether its configuration changed, in seconds.
LOOK_S = 2.0
#: How long one that reads the same file is waited for until it has read it again.
CATCH_UP_S = 30.0
_SAME_SERVER = timedelta(minutes=5)  # one that comes back within it has been there all the time
_REFUSED_FOR = timedelta(hours=24)
_TOLD = 3  # differences named in a sentence

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Statement:
    """What a process goes by: entries of its configuration, versions of packages, and the file's path."""

    settings: Mapping[str, str]
    versions: Mapping[str, str]
    path: str

    @cached_property
    def config(self) -> str:
        """Fingerprint of the configuration."""
        return fingerprint(self.settings)

    @cached_property
    def packages(self) -> str:
        """Fingerprint of the packages."""
        return fingerprint(self.versions)

    def agrees(self, other: StatementRecord) -> bool:
        """Whether another process goes by the same."""
        return (self.config, self.packages) == (other.config, other.packages)


@dataclass(frozen=True)
class Requested:
    """What the tags of a run say of who requested it: its machine's name, and its two fingerprints."""

    by: str
    config: str
    packages: str


def living(documents: DocumentStore, *roles: str) -> list[StatementRecord]:
    """Statements of processes that live, in roles (by default code servers), the longest there first."""
    wanted = {"role": {"in": list(roles or (CODE_SERVER,))}}
    found = [one for one in typed.find(documents, StatementRecord, wanted) if not is_gone(one)]
    return sorted(found, key=lambda one: (one.since, one.id))


def leading(documents: DocumentStore) -> StatementRecord | None:
    """The code server that all others have to agree with: the one that has been there longest."""
    return next(iter(living(documents)), None)


def binding(documents: DocumentStore) -> StatementRecord | None:
    """Whom an evaluation from a terminal has to agree with; None where it is alone.

    A code server, or else the evaluation that runs elsewhere for the longest time.
    """
    others = (one for one in living(documents, RUN) if (one.host, one.pid) != (machine(), os.getpid()))
    return leading(documents) or next(others, None)


def refusal(
    documents: DocumentStore,
    own: Statement,
    look: Callable[[DocumentStore], StatementRecord | None],
    requested: Requested | None = None,
    *,
    catch_up_s: float = CATCH_UP_S,
) -> str | None:
    """Why this process may not act: who else goes by what else, and what to do. None where it may.

    A process that reads the very file that this one reads has not read it again yet, if they differ: it is
    waited for.

    Args:
        documents: the store that the processes share.
        own: what this process goes by.
        look: whom it has to agree with (:func:`leading`, :func:`binding`).
        requested: what the tags of the run say, which bind where nobody else does.
        catch_up_s: seconds to wait at most.
    """
    deadline = time.monotonic() + catch_up_s
    while (other := look(documents)) is not None:
        if own.agrees(other):
            return None
        same_file = (other.host, other.path) == (machine(), own.path)
        if not same_file or time.monotonic() >= deadline:
            return _sentence(own, _who(other), other.settings, other.versions)
        time.sleep(min(LOOK_S, catch_up_s) / 4)
    if requested is None or (requested.config, requested.packages) == (own.config, own.packages):
        return None
    where = {"config": requested.config, "packages": requested.packages}
    known = next(typed.find(documents, StatementRecord, where, limit=1), None)
    who = f"{requested.by}, which requested this run"
    if known is None:
        return _sentence(own, who, {}, {})
    return _sentence(own, who, known.settings, known.versions)


def differences(own: Mapping[str, str], other: Mapping[str, str], missing: str) -> list[str]:
    """What differs, with both values; ``missing`` says that there is none."""
    return [
        f"{key} is {own.get(key, missing)} here and {other.get(key, missing)} there"
        for key in sorted(own.keys() | other.keys())
        if own.get(key) != other.get(key)
    ]


def _sentence(own: Statement, who: str, settings: Mapping[str, str], versions: Mapping[str, str]) -> str:
    found = differences(own.settings, settings, "not set") if settings else []
    packages = differences(own.versions, versions, "not installed") if versions else []
    what, remedy = _kinds(own, bool(found) or not packages, bool(packages))
    told = [*packages, *found] or ["their fingerprints differ"]
    more = f", and {counted(len(told) - _TOLD, 'other difference')}" if len(told) > _TOLD else ""
    return (
        f"{host_name()} goes by {what} than {who}: {'; '.join(told[:_TOLD])}{more}; {remedy} and restart "
        "what runs there (docs/operations.md); nothing was relayed"
    )


def _kinds(own: Statement, settings: bool, packages: bool) -> tuple[str, str]:
    """What is another, and what to do about it."""
    equal = f"make {own.path} and the files it names equal on all machines"
    same = "install the same versions on all machines"
    if settings and packages:
        return "another configuration and other packages", f"{equal}, {same}"
    return ("other packages", same) if packages else ("another configuration", equal)


def _who(other: StatementRecord) -> str:
    role = "the code server" if other.role == CODE_SERVER else "the evaluation"
    return f"{role} on {other.host.partition('/')[0]} (process {other.pid}, {other.path})"


class Stating:
    """States what this process goes by, in a thread while the context is open, whatever the store does.

    Args:
        documents: gives the store; called again after a failure.
        role: what this process is.
        own: gives what it goes by now; None where that cannot be told, as of a file that is being written.
        ttl_s: seconds after which a statement that was not renewed is gone.
    """

    def __init__(
        self,
        documents: Callable[[], DocumentStore],
        role: str,
        own: Callable[[], Statement | None],
        ttl_s: float = DEFAULT_TTL_S,
    ) -> None:
        self._documents, self._role, self._own, self._ttl_s = documents, role, own, ttl_s
        self._stated: Statement | None = None
        self._renew_at = float("-inf")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="testbench-statement", daemon=True)
        self._problem = ""

    def __enter__(self) -> Stating:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def end(self) -> None:
        """State nothing any more; who is asked now finds this process gone."""
        self._ending.set()
        self._thread.join(self._ttl_s / 3)
        if self._stated is None:
            return
        try:
            _expire(self._documents(), _id(self._role, self._stated))
        except TestbenchError as error:
            _log.info("what this process stated is left to expire: %s", error)  # who waits for that is told

    def look(self) -> None:
        """State it if it changed, and renew it if it is time."""
        own = self._own()
        if own is None or (own == self._stated and boot_clock() < self._renew_at):
            return
        anew = own != self._stated
        if _state(self._documents(), self._role, own, self._ttl_s, anew=anew):
            self._stated, self._renew_at = own, boot_clock() + self._ttl_s / 3
            if anew and self._role == CODE_SERVER:
                _warn_of_difference(self._documents(), own)

    def _go_on(self) -> None:
        while not self._ending.is_set():
            try:
                self.look()
                self._problem = ""
            except Exception as error:  # whatever it is, the process has other work that goes on
                if str(error) != self._problem:
                    _log.warning("what this process goes by cannot be stated yet: %s", error)
                self._problem = str(error)
            self._ending.wait(min(LOOK_S, self._ttl_s / 3))


def _warn_of_difference(documents: DocumentStore, own: Statement) -> None:
    other = leading(documents)
    if other is not None and other.id != _id(CODE_SERVER, own) and not own.agrees(other):
        _log.warning("%s", refusal(documents, own, lambda _: other, catch_up_s=0))


@contextmanager
def stating_once(documents: DocumentStore, role: str, own: Statement) -> Iterator[None]:
    """State what cannot change while the context is open: what an evaluation in this process goes by."""
    stating = Stating(lambda: documents, role, lambda: own)
    stating.look()
    with stating:
        yield


def note_refused(documents: DocumentStore, own: Statement, problem: str) -> None:
    """Remember that a run was refused on this machine, for `testbench check` and the checks of assets."""
    record = _record(REFUSED, own, _REFUSED_FOR.total_seconds(), datetime.now(UTC), problem)
    typed.upsert(documents, StatementRecord, [record])


def note_admitted(documents: DocumentStore, own: Statement) -> None:
    """Forget that runs were refused on this machine."""
    typed.purge(documents, StatementRecord, {"_id": _id(REFUSED, own)})


def refused_lately(documents: DocumentStore) -> list[StatementRecord]:
    """Machines whose last run was refused within a day, with why, by name."""
    since = {"role": REFUSED, "expires_at": {"gt": datetime.now(UTC)}}
    return sorted(typed.find(documents, StatementRecord, since), key=lambda one: one.host)


def is_own(record: StatementRecord, path: str) -> bool:
    """Whether a statement is of this machine and of one configuration file."""
    return (record.host, record.path) == (machine(), path)


def _id(role: str, own: Statement) -> str:
    process = f", process {os.getpid()}" if role == RUN else ""
    return f"{role} of {own.path} on {machine()}{process}"


def _record(
    role: str, own: Statement, ttl_s: float, since: datetime, problem: str | None = None
) -> StatementRecord:
    return StatementRecord(
        id=_id(role, own),
        role=role,
        since=since,
        config=own.config,
        packages=own.packages,
        settings=dict(own.settings),
        versions=dict(own.versions),
        path=own.path,
        problem=problem,
        expires_at=datetime.now(UTC) + timedelta(seconds=ttl_s),
        boot_deadline=boot_clock() + ttl_s if shares_boot_clock() else None,
        ttl_s=ttl_s,
        host=machine(),
        pid=os.getpid(),
        started=process_started(os.getpid()),
    )


def _state(documents: DocumentStore, role: str, own: Statement, ttl_s: float, *, anew: bool) -> bool:
    """State it, or renew it; False where another process of this machine states the same file already.

    As the old one does for a moment when Dagster reloads the code.
    """
    made = _record(role, own, ttl_s, datetime.now(UTC))
    before = typed.get(documents, StatementRecord, made.id)
    mine = before is not None and (before.pid, before.started) == (made.pid, made.started)
    if before is not None and not mine and not is_gone(before):
        return False
    if before is not None and mine and not anew:
        where = {"_id": made.id, "expires_at": before.expires_at}
        renewed = {"expires_at": made.expires_at, "boot_deadline": made.boot_deadline}
        if typed.claim(documents, StatementRecord, where, **renewed) is not None:
            return True
    if before is not None and before.expires_at > made.since - _SAME_SERVER:
        made = replace(made, since=before.since)
    typed.upsert(documents, StatementRecord, [made])
    return True


def _expire(documents: DocumentStore, id_: str) -> None:
    """What this process stated is over; that it was there stays known."""
    found = typed.get(documents, StatementRecord, id_)
    if found is not None and found.pid == os.getpid():
        past = datetime.now(UTC) - timedelta(seconds=found.ttl_s)
        where = {"_id": id_, "expires_at": found.expires_at}
        typed.claim(documents, StatementRecord, where, expires_at=past, boot_deadline=0.0)
