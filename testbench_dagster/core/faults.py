"""The closed fault table: what can happen to an attempt, who answers for it, and all that follows from that.

One row per fault, the only place that says what a fault means. Whoever treats faults differently reads a
column of the row (``fault.row.slows_host``); nobody lists faults. Only code that decides *which* fault an
event is (an HTTP status, an exception, a miner's error) names them. A new fault is a row here and the line
that decides on it. What becomes of a doc says :mod:`.doc_states`, from the column ``closes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Owner(StrEnum):
    """Who is answerable for a fault."""

    NONE = "none"
    SUPPLIER = "supplier"
    NETWORK = "network"
    CLIENT = "client"
    GATEWAY = "gateway"
    SESSION = "session"
    BUDGET = "budget"
    NODE = "node"
    INTERNAL = "internal"

    @property
    def ours(self) -> bool:
        """Whether we are: by what we ask for, or by a mistake of our own."""
        return self in (Owner.CLIENT, Owner.INTERNAL)


class Way(StrEnum):
    """How a relay travels, which bounds what can happen to it."""

    PLAIN = "plain"
    GATEWAY = "gateway"
    SIGNED = "signed"


class Closing(StrEnum):
    """What becomes of a doc whose witnessed occasions all end in a fault."""

    SCORED = "scored"
    FAILED = "failed"
    #: Failed; void where suppliers of three units refuse it and none scored it; no score at all where the
    #: supplier refuses a request shape everywhere.
    REFUSED = "failed, void or refused"
    #: Failed where the supplier answers others meanwhile; nothing as long as it answers nobody.
    MIXED = "failed if mixed"
    #: Ours: it stays open.
    OPEN = "open"


class Pause(StrEnum):
    """What of a supplier waits after a fault."""

    NONE = "–"
    #: The doc: until the supplier answered another one since.
    DOC = "doc"
    #: All its docs, after five unanswered in a row.
    LANE = "lane"
    #: All its docs, until it answered one that it has answered before.
    PROBE = "probe"
    #: Everything: nothing is sent any more.
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class FaultRow:
    """The columns of the fault table. Most faults have the defaults.

    ``owner``: who answers for it. ``when``: what happened, for the documentation. ``closes``: what it makes
    of the doc. ``available``: whether it counts in ``availability`` as answered (True), as not (False), or
    says nothing of the supplier (None). ``remedy``: what to do about it, as ``testbench check`` tells; empty
    where there is an answer. ``ways``: how a relay travels to which it can happen.
    """

    owner: Owner
    when: str
    remedy: str
    closes: Closing = Closing.OPEN
    #: Witnessed occasions without an answer after which the doc closes (K); 0 where it never does.
    occasions: int = 0
    #: Further attempts in a run, at the doc's first occasion and at later ones.
    in_run: tuple[int, int] = (0, 0)
    pause: Pause = Pause.NONE
    available: bool | None = None
    ways: frozenset[Way] = frozenset(Way)

    # -- in a run: limits --
    #: It cannot keep up, or refuses what we send (a wrong key would otherwise be told so for every prompt):
    #: fewer relays at once to the supplier.
    slows_supplier: bool = False
    #: What the host itself says, not one slow supplier on it: fewer relays at once to all behind it.
    slows_host: bool = False
    #: It asks for time: the wait it names counts for all its relays once it is told again without an answer
    #: between.
    paces: bool = False

    # -- what it says of the supplier --
    #: Somebody was there: False where no connection came about, or nothing was sent.
    reached: bool = True
    #: A relay miner may have charged for the attempt.
    charged: bool = True
    #: A session kept the request from the supplier, which says nothing about it.
    kept_by_session: bool = False
    #: It took the request, and may have worked on it although nothing came back.
    worked_on: bool = False
    #: To a request that takes a capability: the supplier lacks it.
    denies_capability: bool = False
    #: To a request for a page (GET): the supplier does not serve it to us.
    denies_page: bool = False
    #: There is an answer, cut at the token limit.
    cut_short: bool = False
    #: It did as it was asked, but what it answered shows nothing to score: the supplier is well.
    in_order: bool = False

    # -- evidence --
    #: Status and body alone decide it, so that evidence is classified again; of the others the transport that
    #: sent the relay is the only witness.
    shown_by_answer: bool = False


class Fault(StrEnum):
    """Outcome of one attempt, with its row of the table; stored by name."""

    row: FaultRow

    def __new__(cls, value: str, row: FaultRow | None = None) -> Fault:
        """Make a member; the row has a default only because a look-up by name passes none."""
        if row is None:
            raise TypeError(f"fault {value!r} has no row: write it as {value!r}, FaultRow(...)")
        member = str.__new__(cls, value)
        member._value_ = value
        member.row = row
        return member

    OK = (
        "ok",
        FaultRow(
            owner=Owner.NONE,
            when="an answer",
            remedy="",
            closes=Closing.SCORED,
            available=True,
            shown_by_answer=True,
        ),
    )
    TRUNCATED = (
        "truncated",
        FaultRow(
            owner=Owner.NONE,
            when="an answer, cut at the token limit",
            remedy="",
            closes=Closing.SCORED,
            available=True,
            cut_short=True,
            shown_by_answer=True,
        ),
    )
    EMPTY = (
        "empty",
        FaultRow(
            owner=Owner.SUPPLIER,
            ways=frozenset(),  # nothing ends in it any more
            when="HTTP 200 without text, of attempts of earlier versions",
            closes=Closing.FAILED,
            occasions=2,
            in_run=(1, 1),
            pause=Pause.DOC,
            available=False,
            remedy="it answers without text: check model and api",
            denies_capability=True,
            shown_by_answer=True,
        ),
    )
    SUPPLIER_HTTP = (
        "supplier_http",
        FaultRow(
            owner=Owner.SUPPLIER,
            when="other HTTP 5xx, 3xx, 424; an answer that says it failed (`error`, `abort`)",
            remedy="ask its operator; where it redirects (3xx), base_url is wrong: write the final address",
            closes=Closing.FAILED,
            occasions=3,
            in_run=(3, 1),
            pause=Pause.LANE,
            available=False,
            shown_by_answer=True,
        ),
    )
    UNAVAILABLE = (
        "unavailable",
        FaultRow(
            owner=Owner.SUPPLIER,
            when="HTTP 502 to 504, 52x, 530, 598, 599, 408, 409, 423, 425, 498, 499",
            closes=Closing.FAILED,
            occasions=3,
            in_run=(3, 1),
            pause=Pause.LANE,
            available=False,
            remedy="it is overloaded, restarting or gone: lower max_in_flight or ask its operator",
            slows_supplier=True,
            shown_by_answer=True,
        ),
    )
    SUPPLIER_TIMEOUT = (
        "supplier_timeout",
        FaultRow(
            owner=Owner.SUPPLIER,
            when="connected, deadline passed",
            closes=Closing.FAILED,
            occasions=3,
            in_run=(1, 1),
            pause=Pause.LANE,
            available=False,
            remedy="it does not answer in time: raise first_byte_s or total_s, or ask its operator",
            slows_supplier=True,
            worked_on=True,
        ),
    )
    SUPPLIER_PROTOCOL = (
        "supplier_protocol",
        FaultRow(
            owner=Owner.SUPPLIER,
            when="200 with an `error` that names no HTTP status, or with tool calls alone; JSON that cannot "
            "be read, is too large or too deep; invalid log-probabilities",
            remedy="ask its operator",
            closes=Closing.FAILED,
            occasions=2,
            in_run=(1, 1),
            pause=Pause.DOC,
            available=False,
            denies_capability=True,
        ),
    )
    SUPPLIER_REFUSED = (
        "supplier_refused",
        FaultRow(
            owner=Owner.SUPPLIER,
            when="content filter, refusal, HTTP 451",
            remedy="ask its operator",
            closes=Closing.FAILED,
            occasions=2,
            in_run=(1, 1),
            available=True,
            shown_by_answer=True,
        ),
    )
    SUPPLIER_SIGNATURE = (
        "supplier_signature",
        FaultRow(
            ways=frozenset({Way.SIGNED}),
            owner=Owner.SUPPLIER,
            when="forged or missing signature",
            remedy="ask its operator",
            closes=Closing.FAILED,
            occasions=2,
            in_run=(1, 1),
            pause=Pause.DOC,
            available=False,
        ),
    )
    UNSCORABLE = (
        "unscorable",
        FaultRow(
            owner=Owner.SUPPLIER,
            ways=frozenset(),  # the relay brought an answer
            when="an answer that ends the scorer's process, twice",
            closes=Closing.FAILED,
            occasions=1,
            available=True,
            remedy="its answer breaks the filters or metrics of the task: see the error of the score",
        ),
    )
    RATE_LIMITED = (
        "rate_limited",
        FaultRow(
            owner=Owner.NETWORK,
            when="HTTP 429, also inside a 200",
            closes=Closing.FAILED,
            occasions=3,
            in_run=(5, 1),
            pause=Pause.LANE,
            remedy="it limits the rate: lower max_in_flight or ask its operator",
            slows_supplier=True,
            slows_host=True,
            paces=True,
            shown_by_answer=True,
        ),
    )
    TRANSPORT = (
        "transport",
        FaultRow(
            ways=frozenset({Way.PLAIN, Way.SIGNED}),
            owner=Owner.NETWORK,
            when="DNS, connect, reset before a response",
            closes=Closing.FAILED,
            occasions=3,
            in_run=(3, 1),
            pause=Pause.LANE,
            available=False,
            remedy="is it running, and is base_url right?",
            slows_supplier=True,
            slows_host=True,
            reached=False,
        ),
    )
    CLIENT_REQUEST = (
        "client_request",
        FaultRow(
            owner=Owner.CLIENT,
            when="other HTTP 4xx, such as 400, 413, 422; an endpoint that is not asked",
            closes=Closing.REFUSED,
            occasions=2,
            remedy="it refuses our request: check api and model, and what the task asks with",
            slows_supplier=True,
            denies_capability=True,
            denies_page=True,
            shown_by_answer=True,
        ),
    )
    # Void or failed like a refusal: whoever merges tokens where it would be wrong is not let off by it.
    UNSUPPORTED = (
        "unsupported",
        FaultRow(
            owner=Owner.CLIENT,
            when="log-probabilities that do not show the continuation's: a token of the model's belongs to "
            "both context and continuation",
            closes=Closing.REFUSED,
            occasions=2,
            remedy="the model's tokenizer does not cut where the task does: ask it in a form that takes "
            "generated text",
            in_order=True,
            shown_by_answer=True,
        ),
    )
    QUOTA = (
        "quota",
        FaultRow(
            owner=Owner.CLIENT,
            when="HTTP 402; 429, 403, 400 with `insufficient_quota` or its like; a relay miner that grants "
            "no more in the session",
            closes=Closing.MIXED,
            occasions=3,
            in_run=(1, 1),
            pause=Pause.PROBE,
            remedy="our quota or credit with it is used up: raise it",
            shown_by_answer=True,
        ),
    )
    CREDENTIALS = (
        "credentials",
        FaultRow(
            owner=Owner.CLIENT,
            when="HTTP 401, 403, 404; 407 of a proxy on the way; a relay miner that refuses our signature",
            closes=Closing.MIXED,
            occasions=3,
            in_run=(1, 1),
            pause=Pause.PROBE,
            remedy="it refuses our key, or does not know the model: check api_key_env, base_url and model",
            shown_by_answer=True,
        ),
    )
    GATEWAY = (
        "gateway",
        FaultRow(
            owner=Owner.GATEWAY,
            when="a PATH gateway failed, or may have asked others; our proxy was not reached, refused, or "
            "failed without saying that the supplier did",
            remedy="look at the gateway or proxy on the way: `testbench check` asks a gateway",
            closes=Closing.MIXED,
            occasions=3,
            in_run=(2, 1),
            pause=Pause.LANE,
        ),
    )
    ROLLOVER = (
        "rollover",
        FaultRow(
            ways=frozenset({Way.GATEWAY, Way.SIGNED}),
            owner=Owner.SESSION,
            when="the session ended, or has not the supplier",
            remedy="nothing: it is sent again in the next session",
            closes=Closing.FAILED,
            occasions=3,
            in_run=(2, 1),
            reached=False,
            charged=False,
            kept_by_session=True,
        ),
    )
    BUDGET = (
        "budget",
        FaultRow(
            ways=frozenset({Way.SIGNED}),
            owner=Owner.BUDGET,
            when="by our own count no relay is left for the supplier in the session",
            remedy="wait for the next session, or raise the application's stake",
            pause=Pause.STOP,
            reached=False,
            charged=False,
            kept_by_session=True,
        ),
    )
    NODE = (
        "node",
        FaultRow(
            ways=frozenset({Way.SIGNED}),
            owner=Owner.NODE,
            when="no node of the chain answers, or the chain lacks the public key",
            closes=Closing.MIXED,
            occasions=3,
            in_run=(2, 1),
            pause=Pause.LANE,
            remedy="nothing was sent to it",
            reached=False,
            charged=False,
        ),
    )
    INTERNAL = (
        "internal",
        FaultRow(
            owner=Owner.INTERNAL,
            when="our own mistake, or a lost lease",
            pause=Pause.STOP,
            remedy="that is on our side, not its operator's",
        ),
    )

    @property
    def owner(self) -> Owner:
        """Who answers for it."""
        return self.row.owner

    @property
    def answered(self) -> bool:
        """Whether the attempt brought an answer that is scored."""
        return self.row.closes is Closing.SCORED

    @property
    def blames_supplier(self) -> bool:
        """Whether it counts against the supplier."""
        return self.row.owner is Owner.SUPPLIER


def faults_on(way: Way) -> tuple[Fault, ...]:
    """The faults that a relay can end in which travels this way, in the table's order."""
    return tuple(fault for fault in Fault if way in fault.row.ways)
