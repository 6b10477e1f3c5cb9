"""What travels through a transport: the relay to make and the attempt that came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.stream_watch import StreamWatch

#: Name of a transport, as stored and configured; :mod:`testbench_dagster.transports.registry` knows them all.
TransportName = str
#: Transport of suppliers that are asked as they are listed: where nothing else is said.
DEFAULT_TRANSPORT: TransportName = "direct"
#: Deadlines of a relay that follow how long its answer may be, see :class:`Limits`.
FOLLOWING = ("first_byte_s", "idle_s", "total_s")
#: Tokens a second of the slowest server that is waited for: an answer of n tokens may take n / 20 seconds.
SLOWEST_TOKENS_PER_S = 20
_LONGEST_S = 86_400.0
#: Waits until one more HTTP request of a relay may leave at the pace of its endpoint; False: none may.
FurtherTurn = Callable[[], Awaitable[bool]]
#: Forms of requests, named after the endpoint of the OpenAI API they go to.
Api = Literal["chat", "completions"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one relay and on how many run at once (the ``relays:`` block of testbench.yaml).

    Times in seconds, sizes in MiB. ``retries`` caps the further attempts at a doc that the fault table
    gives. The number in flight starts at ``start_in_flight`` and adapts between 1 and ``max_in_flight``;
    suppliers that share a host have at most ``max_per_host`` in flight together.

    ``following`` names the deadlines that nobody set. An answer of up to n tokens may take n / 20 seconds,
    and a server that does not stream says nothing before it ends: they are that long where they would be
    shorter.
    """

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 120.0
    retries: int = 5
    max_response_mb: float = 8.0
    max_in_flight: int = 256
    start_in_flight: int = 2
    max_per_host: int = 64
    following: frozenset[str] = field(default=frozenset(), compare=False)

    def for_answer(self, tokens: int) -> Limits:
        """The bounds on a relay whose answer may have so many tokens."""
        needed = min(tokens / SLOWEST_TOKENS_PER_S, _LONGEST_S)
        longer: dict[str, Any] = {name: needed for name in self.following if getattr(self, name) < needed}
        return replace(self, **longer) if longer else self


@dataclass(frozen=True, slots=True)
class Route:
    """How connections to an endpoint are made, and what all its URLs carry; secrets stay out of the repr.

    ``query`` and ``secret_query`` are parameters of every URL, the second ones secret. ``proxy`` is the URL
    of an HTTP proxy, perhaps with user name and password, ``ca_file`` the path of the authorities that are
    trusted; None for those of the system.
    """

    query: tuple[tuple[str, str], ...] = ()
    secret_query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca_file: str | None = None


#: Connected straight to, with the certificates that the system trusts.
STRAIGHT = Route()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One supplier as a transport sees it. ``headers`` may hold a secret, so it stays out of the repr.

    Unless ``private_allowed``, transports refuse to connect to addresses that are not public. ``transport``
    says which one reaches it. Of suppliers on a Pocket network, ``address`` is the operator's, ``rpc_type``
    the type its endpoint was staked with, ``prefix`` what stands between ``base_url`` (the staked URL, or the
    gateway's) and the path of the API, and ``stream`` whether answers are asked for as event streams.
    ``generation`` is how it wants to be asked for texts, ``route`` how connections to it are made, ``pace``
    how fast it may be asked (None: as it can). Suppliers with the same ``host`` (None: one of its own) share
    a limit.
    """

    supplier: str
    service: str
    base_url: str
    api: Literal["chat", "completions"]
    model: str
    limits: Limits = Limits()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    private_allowed: bool = True
    transport: TransportName = DEFAULT_TRANSPORT
    address: str = ""
    rpc_type: int | None = None
    prefix: str = ""
    host: str | None = None
    stream: bool = False
    generation: SupplierGeneration = AS_THE_TASK_SAYS
    route: Route = STRAIGHT
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class SessionRef:
    """The session a relay was sent in: whose it is (``app``), which heights it spans, the height then."""

    app: str
    session_id: str
    start_height: int
    end_height: int
    height: int | None


@dataclass(slots=True)
class Relay:
    """One call to make: request ``idx`` of a prompt, its ``repeat``-th sample, in a round.

    ``request`` is the transport-independent request stored with the prompt:
    ``{"type": "generate_until", "idx", "messages" | "prompt", "generation"}``, where the task says so with
    ``think_end_token`` (see :class:`~testbench_dagster.core.task.TaskGeneration`),
    ``{"type": "chat", "idx", "messages", "generation"}`` with ``tools``, ``tool_choice`` or
    ``response_format``, which is answered by a message
    (:class:`~testbench_dagster.core.chat_message.ChatMessage`),
    ``{"type": "loglikelihood", "idx", "context", "continuation"}`` or ``{"type": "get", "idx", "path"}``.
    ``attempt`` counts from 1 and says how many were already recorded, plus one. ``occasion`` counts, from 1,
    the times at which its doc was asked, each with its attempts in quick succession. A ``canary`` asks again
    what the supplier has answered before: it shows whether the supplier answers at all, and enters no score.
    ``further`` is there where its endpoint has a pace: a transport that posts a relay again within one
    attempt waits for it first. With a ``watch`` the relay is sent as that says, and told of there; relays
    that are scored have none.
    """

    supplier: str
    service: str
    task: str
    task_hash: str
    epoch: int
    round: int
    prompt_id: str
    position: int
    doc_id: int
    idx: int
    repeat: int
    request: Mapping[str, Any]
    attempt: int = 1
    occasion: int = 1
    canary: bool = False
    further: FurtherTurn | None = field(default=None, repr=False, compare=False)
    watch: StreamWatch | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class Attempt:
    """What one send brought: the classified outcome with its evidence.

    ``body`` is the raw answer as received, cut at ``max_response_mb`` (then ``body_truncated``). ``text``
    and ``logprob``/``greedy`` are what parsing found in it, ``reasoning_tokens`` and ``reasoning_chars`` what
    it found of thoughts, which ``text`` holds none of. Latencies in milliseconds from the moment the
    request was handed to the transport; ``first_token_ms`` is known of streamed answers. ``session`` is that
    of a relay on a Pocket network. ``retry_after_s`` is the server's wish, already bounded. Transports put at
    least ``path`` (relative to the base URL; that of a page to its root) and ``payload_sha256`` (of
    the request body as sent, in hexadecimal) into ``evidence``. ``own_in_flight`` is how many requests of
    ours the host had while it ran, itself included; whoever sends many fills it in.
    """

    fault: Fault
    started_at: datetime
    finished_at: datetime
    latency_ms: float
    first_byte_ms: float | None = None
    first_token_ms: float | None = None
    status: int | None = None
    body: bytes = b""
    body_bytes: int = 0
    body_truncated: bool = False
    error: str | None = None
    text: str | None = None
    logprob: float | None = None
    greedy: bool | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    reasoning_chars: int | None = None
    retry_after_s: float | None = None
    session: SessionRef | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    own_in_flight: int | None = None


class Transport(Protocol):
    """How a relay reaches a supplier: a transport, opened in an event loop."""

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify; never raises for anything the supplier or the network does."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
