"""Several nodes as one: who is asked, who is passed over and for how long, and how far the chain is.

A node is usable when it answered the last survey, is on the same chain as the others, does not catch up and
is not more than ``max_lag_blocks`` behind the highest block any node has told of (a node that lies about its
height is believed up to ``MAX_JUMP`` blocks). The one that answered last is asked first, so that what is read
in a row comes from one view of the chain; then the others as configured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.chain.error_mapping import past_unknown
from testbench_dagster.transports.pocket.chain.errors import (
    BadAnswer,
    ChainError,
    NodeFault,
    NodeUnavailable,
    NotFound,
    PastUnknown,
    SessionUnavailable,
)
from testbench_dagster.transports.pocket.chain.node_api import NodeApi, Tip
from testbench_dagster.transports.pocket.chain.queries import Query
from testbench_dagster.transports.pocket.chain.transfer import Transfer
from testbench_dagster.transports.pocket.chain.types import NodeReport

#: A node that fails again and again is left alone up to this many times ``pause_s``.
MAX_PAUSES = 16
#: Blocks the chain cannot have grown between two surveys: more is a node's mistake.
MAX_JUMP = 100_000

T = TypeVar("T")


class _Node:
    """A node and what is known of it; guarded by the lock of :class:`Nodes`."""

    def __init__(self, api: NodeApi) -> None:
        self.api = api
        self.label = f"{shown_url(api.url)} ({api.name})"
        self.tip: Tip | None = None
        self.problem: str | None = None
        self.usable = False
        self.failures = 0
        self.paused_until = float("-inf")


class Asker:
    """Puts queries to one node."""

    def __init__(self, nodes: Nodes, node: _Node) -> None:
        self._nodes = nodes
        self._node = node

    def ask(self, query: Query, read: Callable[[object], T]) -> T:
        """Put a query, and return what ``read`` makes of the answer; raises what :class:`NodeApi` lists."""
        nodes, api = self._nodes, self._node.api
        known = nodes.height
        answer = api.read(query, nodes.transfer.fetch(api.request(query)))
        if query.at is not None and answer.height not in (None, query.at):
            raise past_unknown(query, f"it answers as of height {answer.height}")
        if query.at is None and answer.height is not None:
            nodes.observe(answer.height, known)
        return read(answer.value)


class Nodes:
    """Asks nodes until one answers; thread-safe."""

    def __init__(
        self,
        apis: Sequence[NodeApi],
        transfer: Transfer,
        *,
        max_lag_blocks: int,
        pause_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.transfer = transfer
        self.max_lag_blocks = max_lag_blocks
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._nodes = [_Node(api) for api in apis]
        self._last: _Node | None = None
        self._chain = ""
        self._height = 0

    @property
    def height(self) -> int:
        """The highest block any node has told of, 0 before the first; never lower than before."""
        with self._lock:
            return self._height

    def survey(self, *, everyone: bool = False) -> int:
        """Ask all nodes that are not paused (or everyone) how far they are; return the chain's height.

        Raises:
            NodeUnavailable: none of them is usable.
        """
        now = self._clock()
        with self._lock:
            chosen = [n for n in self._nodes if everyone or n.paused_until <= now] or list(self._nodes)
        late = self._ask_status(chosen, patient=everyone)
        rest = [n for n in self._nodes if n in late or n not in chosen]
        if rest and not self._usable():
            self._ask_status(rest, patient=True)
        if not self._usable():
            raise self._unavailable("how far the chain is", {})
        return self.height

    def over(self, what: str, work: Callable[[Asker], T]) -> T:
        """Do some work with one node after the other until one manages.

        Raises:
            NotFound: the chain says so.
            SessionUnavailable: the chain says so; for ``height_ahead`` all nodes were asked.
            PastUnknown: none tells of the height that is asked about, and one of them said so.
            BadAnswer: all nodes broke the protocol.
            NodeUnavailable: no node managed.
        """
        tried: dict[_Node, ChainError] = {}
        while True:
            for node in self._order():
                if node in tried:
                    continue
                try:
                    result = work(Asker(self, node))
                except PastUnknown as error:  # nothing is wrong with it
                    tried[node] = error
                    continue
                except (NodeFault, BadAnswer) as error:
                    tried[node] = error
                    self._failed(node, str(error))
                    continue
                except (NotFound, SessionUnavailable) as error:
                    if isinstance(error, SessionUnavailable) and error.reason == "height_ahead":
                        tried[node] = error
                        continue
                    self._answered(node)
                    raise
                self._answered(node)
                return result
            # paused ones and those the last survey could not reach may be well again
            unasked = [n for n in self._nodes if n not in tried]
            if not unasked:
                break
            self._ask_status(unasked, patient=True)
            if not any(n.usable for n in unasked):
                break
        raise self._failure(what, tried)

    def observe(self, height: int, known: int) -> None:
        """Take note of a height a node told of; ``known`` was the chain's when the node was asked.

        Raises:
            NodeFault: it is too far behind that, or further ahead than the chain can be.
        """
        if height < known - self.max_lag_blocks:
            raise NodeFault(_lag(height, known))
        with self._lock:
            if self._height and height > self._height + MAX_JUMP:
                raise NodeFault(f"tells height {height}, far above {self._height}, the last one seen")
            self._height = max(self._height, height)

    def reports(self) -> list[NodeReport]:
        """Return how each node stands, in the order of configuration."""
        with self._lock:
            return [
                NodeReport(
                    shown_url(n.api.url),
                    n.api.name,
                    None if n.tip is None else n.tip.height,
                    None if n.tip is None else n.tip.catching_up,
                    n.problem,
                )
                for n in self._nodes
            ]

    # ---------------------------------------------------------------------------------------- inside

    def _usable(self) -> bool:
        with self._lock:
            return any(n.usable for n in self._nodes)

    def _order(self) -> list[_Node]:
        with self._lock:
            return sorted((n for n in self._nodes if n.usable), key=lambda n: n is not self._last)

    def _ask_status(self, nodes: Sequence[_Node], *, patient: bool) -> list[_Node]:
        """Ask nodes for their state and judge it; return those that were not waited for."""
        known = self.height  # others may tell of later blocks while these are on their way
        outcomes = self.transfer.gather([n.api.status_requests() for n in nodes], patient=patient)
        told: list[tuple[_Node, Tip]] = []
        late: list[_Node] = []
        for node, replies in zip(nodes, outcomes, strict=True):
            if replies is None:
                late.append(node)
                with self._lock:
                    node.usable, node.problem = False, "answers much later than other nodes"
                    node.paused_until = self._clock() + self._pause_s
                continue
            try:
                told.append((node, node.api.read_status(replies)))
            except (NodeFault, BadAnswer) as error:
                with self._lock:
                    node.tip = None
                self._failed(node, str(error))
        with self._lock:
            self._judge(told, known)
        return late

    def _judge(self, told: Sequence[tuple[_Node, Tip]], known: int) -> None:
        """Decide who of those that told their tip is usable, and note the highest one.

        ``known`` was the chain's height when they were asked.
        """
        good = []
        for node, tip in told:
            node.tip, node.usable = tip, False
            if tip.chain and self._chain and tip.chain != self._chain:
                node.problem = f"is on chain {tip.chain!r}, the others on {self._chain!r}; remove it"
            elif self._height and tip.height > self._height + MAX_JUMP:
                node.problem = f"tells height {tip.height}, far above {self._height}, the last one seen"
            elif tip.catching_up:
                node.problem = f"is catching up with the chain, at height {tip.height}"
            else:
                good.append((node, tip))
                self._chain = self._chain or tip.chain
        best = max([known, *(tip.height for _, tip in good)])
        self._height = max(self._height, best)
        for node, tip in good:
            if tip.height < best - self.max_lag_blocks:
                node.problem = _lag(tip.height, best)
            else:
                node.usable, node.problem = True, None

    def _answered(self, node: _Node) -> None:
        with self._lock:
            self._last = node
            node.failures, node.paused_until, node.problem = 0, float("-inf"), None

    def _failed(self, node: _Node, problem: str) -> None:
        with self._lock:
            pauses = min(2**node.failures, MAX_PAUSES)
            node.failures = min(node.failures + 1, 30)
            node.usable, node.problem = False, problem
            node.paused_until = self._clock() + self._pause_s * pauses

    def _failure(self, what: str, tried: dict[_Node, ChainError]) -> ChainError:
        for error in tried.values():
            if isinstance(error, (SessionUnavailable, PastUnknown)):
                return error
        broken = [f"{n.label}: {e}" for n, e in tried.items() if isinstance(e, BadAnswer)]
        if broken and len(broken) == len(self._nodes):
            return BadAnswer("; ".join(broken))
        return self._unavailable(what, tried)

    def _unavailable(self, what: str, tried: dict[_Node, ChainError]) -> NodeUnavailable:
        with self._lock:
            problems = [
                (n.label, str(tried.get(n) or n.problem or "was not asked in time")) for n in self._nodes
            ]
        return NodeUnavailable(what, problems)


def shown_url(url: str) -> str:
    """A node's URL for messages: without user, password, path and query, any of which may be a key."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    more = "/…" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{host}{more}"


def _lag(height: int, best: int) -> str:
    return f"lags: it is at height {height}, {counted(best - height, 'block')} behind"
