"""Which session of which application may be used for a supplier now, and how many relays are left in it.

A :class:`SessionBook` holds the newest sessions of a service's applications as the chain told them. Reading
it is quick and never leaves the process; :meth:`SessionBook.refresh` asks the chain and blocks. Heights are
block heights, times seconds of the clock it is given.

What a session grants follows from what held at its first height, as the chain settles by that: a change of
parameters or of the service's price shows before it holds.

A session is used from its first height to its last. Relay miners would take its relays for
``grace_period_end_offset_blocks`` longer, and one block less for pay: that time belongs to relays in flight.
Only while no node answers, or the height they tell stands still, are sessions held on to in it, for as long
as they cannot be over by the pace of blocks seen so far.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from testbench_dagster.transports.pocket.chain.errors import ChainError, NotFound, SessionUnavailable
from testbench_dagster.transports.pocket.chain.types import UNLIMITED, Chain, Session, SessionTerms

#: Blocks are taken to last this long until two heights were seen, in seconds; mainnet's last about 46.
BLOCK_S = 30.0
#: Refreshes that follow each other within this time are one, in seconds.
MIN_REFRESH_S = 1.0
#: A height that does not change for so many seconds, and for so many blocks, is that of a node that hangs.
HANGS_S, HANGS_BLOCKS = 300.0, 4
#: A node may tell a height and only a while later the session that begins with it (several nodes behind one
#: URL, say): so long that is awaited, in seconds, before suppliers count as being in no session.
AWAITED_S = 10.0
#: Without a refresh for so many polls nothing is known any more.
_STALE_POLLS = 3.0
_SHORTEST_POLL_S = 0.1
_HEIGHTS = 16  # kept to estimate the pace of blocks

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _RelayBudget:
    """Relays of one supplier in one session: how many it grants, how many are used or reserved."""

    limit: int
    used: int = 0
    noted: bool = False  # what is known from elsewhere was added
    refused: bool = False  # the supplier said that it grants no more

    @property
    def left(self) -> int:
        return 0 if self.refused else max(0, self.limit - self.used)


@dataclass(slots=True)
class _Held:
    """One application's newest session."""

    session: Session
    members: frozenset[str]
    limit: int  # relays per supplier
    grace: int  # blocks for which relays in flight are still taken
    budgets: dict[str, _RelayBudget] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.session.header.session_id

    @property
    def end(self) -> int:
        return self.session.header.end_height


class SessionBook:
    """The sessions of one service's applications; thread-safe.

    ``max_relays`` bounds the relays per supplier and session beyond what the stake does. Heights are to be
    refreshed every ``poll_s`` seconds or sooner: :meth:`poll_in` tells when.
    """

    def __init__(
        self,
        client: Chain,
        service: str,
        apps: Sequence[str],
        *,
        poll_s: float = 10.0,
        max_relays: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.apps = tuple(apps)
        self.poll_s = poll_s
        self._client = client
        self._max_relays = UNLIMITED if max_relays is None else max_relays
        self._min_refresh_s = min(MIN_REFRESH_S, poll_s)
        self._clock = clock
        self._refreshing = threading.Lock()  # one refresh at a time
        self._lock = threading.RLock()  # guards everything below; never held while the chain is asked
        self._held: dict[str, _Held] = {}
        self._by_operator: dict[str, list[_Held]] = {}
        self._reserved: dict[str, deque[str]] = {}  # session ids by operator
        self._problems: dict[str, str] = {}
        self._invalid: set[str] = set()
        self._barred: dict[str, float] = {}  # operators that get nothing for now, and until when
        self._blocked: dict[str, tuple[float, str]] = {}  # session ids: until when, and why
        self._heights: deque[tuple[float, int]] = deque(maxlen=_HEIGHTS)  # when each was first seen
        self._height: int | None = None
        self._height_at = 0.0
        self._tried_at: float | None = None
        self._failure: str | None = None
        self._doubted: set[str] = set()  # what no node tells as of a session's start

    # -- what is known ---------------------------------------------------------------------------------

    def height(self) -> int | None:
        """Newest block height seen, None before the first."""
        return self._height

    @property
    def failure(self) -> str | None:
        """Why it is unknown how far the chain is: no node answers, or their height stands still."""
        with self._lock:
            if self._failure is None and self._hangs():
                stood = self._clock() - self._height_at
                return f"the nodes' height has been {self._height} for {stood:.0f} s: they hang"
            return self._failure

    @property
    def problems(self) -> Mapping[str, str]:
        """Why applications have no session, by address."""
        with self._lock:
            return dict(self._problems)

    def blocked(self, operator: str) -> str | None:
        """Why a session that contains a supplier is not used for now; None if there is no such session."""
        with self._lock:
            found = [self._is_blocked(h) for h in self._by_operator.get(operator, ()) if self._usable(h)]
            return next((why for why in found if why is not None), None)

    def sessions(self) -> list[Session]:
        """The applications' sessions that may be used now."""
        with self._lock:
            return [held.session for held in self._held.values() if self._usable(held)]

    def usable(self, operator: str) -> list[Session]:
        """The sessions that may be used for a supplier now, the one with most relays left first."""
        with self._lock:
            return [held.session for held in self._usable_for(operator)]

    def in_session(self, operator: str) -> bool:
        """Whether a supplier is in a session that may be used now."""
        with self._lock:
            return any(self._usable(held) for held in self._by_operator.get(operator, ()))

    def pause(self) -> float:
        """Seconds after which a refresh asks the chain again."""
        return max(self._min_refresh_s, _SHORTEST_POLL_S)

    def awaits(self, operator: str) -> bool:
        """Whether a supplier is in no session because one has just ended whose successor is not known yet."""
        with self._lock:
            if self._height is None or self._failure is not None or self.in_session(operator):
                return False
            if self._clock() - self._height_at > AWAITED_S:
                return False
            return any(held.end + 1 == self._height for held in self._held.values())

    def is_current(self, session_id: str) -> bool:
        """Whether a session may still be used."""
        with self._lock:
            return any(held.id == session_id and self._usable(held) for held in self._held.values())

    def left(self, operator: str) -> int:
        """Relays that :meth:`reserve` may still count for a supplier in sessions of now."""
        with self._lock:
            if self._is_barred(operator):
                return 0
            return sum(self._budget(held, operator).left for held in self._usable_for(operator))

    def used_up(self, operator: str) -> int | None:
        """Last height of the supplier's sessions of now if all they grant is used, else None."""
        with self._lock:
            held = self._usable_for(operator)
            if not held or any(self._budget(each, operator).left for each in held):
                return None
            return max(each.end for each in held)

    def refuses(self, operator: str) -> bool:
        """Whether a supplier said that it grants no more relays in a session of now, which had some left."""
        with self._lock:
            budgets = [self._budget(held, operator) for held in self._usable_for(operator)]
            return any(budget.refused and budget.used < budget.limit for budget in budgets)

    def stale(self) -> bool:
        """Whether a refresh is needed before anything can be said."""
        with self._lock:
            if self._tried_at is None:
                return True
            age = self._clock() - self._tried_at
            if age > _STALE_POLLS * self.poll_s:
                return True
            # an application without a session (not staked, say) is looked at again with every poll only
            over = any(not self._usable(held) for held in self._held.values())
            return over and age >= self._min_refresh_s

    def poll_in(self) -> float:
        """Seconds until the next refresh is due: when a block ends the sessions, but within ``poll_s``."""
        with self._lock:
            if self._height is None or self._failure is not None or self._hangs():
                return self.poll_s
            left = [held.end + 1 - self._height for held in self._held.values()]
            soonest = min((blocks for blocks in left if blocks > 0), default=1)
            if any(blocks <= 0 for blocks in left):
                soonest = 1  # its successor is awaited
            due = self._height_at + soonest * self._block_s() - self._clock()
            return min(self.poll_s, max(due, _SHORTEST_POLL_S, self._block_s() / 4))

    # -- relays ----------------------------------------------------------------------------------------

    def reserve(self, operator: str) -> bool:
        """Count a relay to a supplier that is about to be sent; whether there is one left."""
        with self._lock:
            held = None if self._is_barred(operator) else self._spend(operator)
            if held is None:
                return False
            self._reserved.setdefault(operator, deque()).append(held.id)
            return True

    def release(self, operator: str) -> None:
        """Undo the last :meth:`reserve`, unless :meth:`take` used it."""
        with self._lock:
            reserved = self._reserved.get(operator)
            if reserved:
                self._unspend(reserved.pop(), operator)

    def take(self, operator: str) -> Session | None:
        """Return the session to send a relay in, and count it there unless :meth:`reserve` did.

        None: the supplier is in no session of now, or has no relays left in any.
        """
        with self._lock:
            reserved = self._reserved.get(operator)
            while reserved:
                session_id = reserved.popleft()
                for held in self._by_operator.get(operator, ()):
                    usable = self._usable(held) and self._is_blocked(held) is None
                    if held.id == session_id and usable:
                        return held.session
                self._unspend(session_id, operator)
            found = self._spend(operator)
            return None if found is None else found.session

    def give_back(self, session_id: str, operator: str) -> None:
        """Uncount a relay that no miner accepted."""
        with self._lock:
            self._unspend(session_id, operator)

    def exhaust(self, session_id: str, operator: str) -> None:
        """Note that a supplier grants no more relays in a session."""
        with self._lock:
            for held in self._held.values():
                if held.id == session_id:
                    self._budget(held, operator).refused = True

    def block_supplier(self, operator: str, seconds: float) -> None:
        """Reserve nothing for a supplier for some time: what is sent to it could not be verified."""
        with self._lock:
            self._barred[operator] = self._clock() + seconds

    def block_session(self, session_id: str, seconds: float, why: str) -> None:
        """Send nothing in a session for some time, to whomever: no relay for it can be signed."""
        with self._lock:
            self._blocked[session_id] = self._clock() + seconds, why

    def unnoted(self, operator: str) -> list[Session]:
        """Sessions of now for which :meth:`note` was not called for a supplier."""
        with self._lock:
            return [h.session for h in self._usable_for(operator) if not self._budget(h, operator).noted]

    def note(self, session_id: str, operator: str, spent: int) -> None:
        """Add relays of a session that are known from elsewhere, such as the store; counts once."""
        with self._lock:
            for held in self._held.values():
                if held.id == session_id:
                    budget = self._budget(held, operator)
                    if not budget.noted:
                        budget.noted = True
                        budget.used += spent

    # -- the chain -------------------------------------------------------------------------------------

    def invalidate(self, session_id: str) -> None:
        """A miner said that a session is over: the chain is asked before it is used again.

        What the chain has confirmed within the last second stays valid.
        """
        with self._lock:
            recent = self._tried_at is not None and self._clock() - self._tried_at < self._min_refresh_s
            if not recent or self._failure is not None:
                self._invalid.add(session_id)

    def refresh(self, *, fresh: bool = False) -> None:
        """Ask the chain for height and sessions; blocks.

        Without ``fresh`` nothing is asked while what is known is younger than ``poll_s`` and in use.

        Raises:
            ChainError: no node answers; what is known stays.
        """
        with self._refreshing:
            if not self._due(fresh):
                return
            try:
                self._ask()
            except ChainError as error:
                with self._lock:
                    self._failure = str(error)
                raise
            finally:
                with self._lock:
                    self._tried_at = self._clock()

    def _due(self, fresh: bool) -> bool:
        with self._lock:
            if self._tried_at is None or self._invalid or self.stale():
                return True
            age = self._clock() - self._tried_at
            eager = fresh or self._failure is not None
            return age >= (self._min_refresh_s if eager else self.poll_s)

    def _ask(self) -> None:
        height = self._client.height(fresh=True)
        found: dict[str, Session] = {}
        problems: dict[str, str] = {}
        failed: ChainError | None = None
        with self._lock:
            known, invalid = dict(self._held), set(self._invalid)
        for app in self.apps:
            held = known.get(app)
            if held is not None and height <= held.end and held.id not in invalid:
                continue
            try:
                found[app] = self._client.session(app, self.service, fresh=held is not None)
            except (SessionUnavailable, NotFound) as error:
                if isinstance(error, SessionUnavailable) and error.reason == "height_ahead":
                    continue  # the nodes are about to have it
                problems[app] = str(error)
            except ChainError as error:
                failed = error
        terms = {app: self._client.terms(self.service, s.header.start_height) for app, s in found.items()}
        self._tell(terms.values())
        with self._lock:
            self._see(height)
            for app, session in found.items():
                self._hold(app, session, terms[app])
            for app in problems:
                self._held.pop(app, None)
            for app in found:
                self._problems.pop(app, None)
            self._problems.update(problems)
            self._invalid.clear()
            self._index()
            self._failure = None if failed is None else str(failed)
        if failed is not None:
            raise failed

    def _tell(self, terms: Iterable[SessionTerms]) -> None:
        """Say once of what no node tells as of the sessions' start."""
        doubts = {doubt for each in terms for doubt in each.doubts} - self._doubted
        if doubts:
            self._doubted |= doubts
            _log.warning(
                "sessions of %s: no node tells %s as of a session's start, so those of now count; a change "
                "within a session is then noticed too early",
                self.service,
                " and ".join(sorted(doubts)),
            )

    def _see(self, height: int) -> None:
        """Note a height; one that is lower than known comes from a node that lags."""
        now = self._clock()
        if self._height is None or height > self._height:
            self._heights.append((now, height))
            self._height = height
            self._height_at = now

    def _hold(self, app: str, session: Session, terms: SessionTerms) -> None:
        known = self._held.get(app)
        if known is not None and known.end > session.header.end_height:
            return  # from a node that lags
        members = frozenset(supplier.operator for supplier in session.suppliers)
        limit = min(self._max_relays, terms.relays(session.application))
        held = _Held(session, members, limit, terms.shared.grace_period_end_offset_blocks)
        if known is not None and known.id == held.id:
            held.budgets = known.budgets  # the same session: what was used of it stays used
        self._held[app] = held

    def _index(self) -> None:
        by_operator: dict[str, list[_Held]] = {}
        for held in self._held.values():
            for operator in held.members:
                by_operator.setdefault(operator, []).append(held)
        self._by_operator = by_operator

    # -- help; the lock is held ------------------------------------------------------------------------

    def _usable(self, held: _Held) -> bool:
        if self._height is None or held.id in self._invalid:
            return False
        if self._failure is None and not self._hangs():
            return self._height <= held.end
        # the height is unknown: the last that miners take and are paid for, by the pace of blocks
        passed = int((self._clock() - self._height_at) / self._block_s())
        return self._height + passed <= max(held.end, held.end + held.grace - 1)

    def _is_barred(self, operator: str) -> bool:
        until = self._barred.get(operator)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._barred[operator]
        return False

    def _is_blocked(self, held: _Held) -> str | None:
        until, why = self._blocked.get(held.id, (0.0, ""))
        if not why or self._clock() < until:
            return why or None
        del self._blocked[held.id]
        return None

    def _hangs(self) -> bool:
        if self._height is None:
            return False
        stood = self._clock() - self._height_at
        return stood > HANGS_S and stood > HANGS_BLOCKS * self._block_s()

    def _block_s(self) -> float:
        if len(self._heights) < 2:
            return BLOCK_S
        (since, low), (until, high) = self._heights[0], self._heights[-1]
        return max((until - since) / (high - low), 1e-3)

    def _usable_for(self, operator: str) -> list[_Held]:
        held = [
            h for h in self._by_operator.get(operator, ()) if self._usable(h) and self._is_blocked(h) is None
        ]
        if len(held) > 1:
            held.sort(key=lambda h: self._budget(h, operator).left, reverse=True)
        return held

    def _budget(self, held: _Held, operator: str) -> _RelayBudget:
        budget = held.budgets.get(operator)
        if budget is None:
            budget = held.budgets[operator] = _RelayBudget(held.limit)
        return budget

    def _spend(self, operator: str) -> _Held | None:
        for held in self._usable_for(operator):
            budget = self._budget(held, operator)
            if budget.left > 0:
                budget.used += 1
                return held
        return None

    def _unspend(self, session_id: str, operator: str) -> None:
        for held in self._by_operator.get(operator, ()):
            if held.id == session_id:
                budget = self._budget(held, operator)
                budget.used = max(0, budget.used - 1)
