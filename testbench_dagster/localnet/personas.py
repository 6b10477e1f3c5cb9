"""Who the simulated suppliers are: models (:class:`Backend`), suppliers (:class:`Persona`), populations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.localnet.chance import pick, unit
from testbench_dagster.localnet.manners import MANNERS, NONSENSE, Manners
from testbench_dagster.localnet.withholding import ANSWER, Withholding

Api = Literal["chat", "completions"]
Style = Literal["terse", "sentence", "reasoned"]
Mangling = Literal["opening", "half"]
#: What a router draws by: each ``call`` anew, or the ``question``, so that one asked again goes the same way.
RoutedBy = Literal["call", "question"]
#: What becomes of the calls that a model makes: they are made; its server takes tools and passes none on; the
#: end of their arguments is missing; there is one where none of the tools fits; they stand in the text.
ToolUse = Literal["good", "no_tools", "bad_json", "ignores_irrelevance", "calls_as_text"]

STYLES: tuple[Style, ...] = ("terse", "sentence", "reasoned")

ROUTED_BY: tuple[RoutedBy, ...] = ("call", "question")

TOOL_USES: tuple[ToolUse, ...] = ("good", "no_tools", "bad_json", "ignores_irrelevance", "calls_as_text")

#: Ways in which a request can fail; `server.py` says what each looks like on the wire.
FAIL_MODES = (
    "500",
    "503",
    "429",
    "401",
    "402",
    "403",
    "404",
    "quota",
    "400",
    "451",
    "timeout",
    "reset",
    "garbage",
    "oversized",
    "error",
    "filter",
    "empty",
    "null",
    "cut",
    "error200",
    "forged",
)

#: So much of an answer suppliers have in common that only pretend to serve the same model.
OPENING_CHARS = 40

#: Pages a supplier may serve about its backend, at ``/<address>/pokt/<page>``.
PAGES = ("tokenizer", "config")

#: Suppliers of a demo and of a network where nobody says how many: the first six, and one that deceives.
#: On a simulated Pocket network, whose relays are signed one by one, the first six.
DEMO_SUPPLIERS, POCKET_SUPPLIERS = 7, 6

#: Service name of every simulated supplier, so that the word stands in each partition key.
SERVICE = "simulation"


@dataclass(frozen=True, slots=True)
class Backend:
    """A model. Two suppliers with one backend give identical answers at temperature 0.

    ``accuracy`` is the share of known questions answered rightly, ``by_task`` overrides it per task name.
    ``latency_ms`` is its time to answer, before what the supplier adds.

    With a ``base`` it is that model, quantised: it goes by its name and answers as it does, but for a share
    ``drift`` of the questions, to which it has answers of its own, with its own accuracy.
    """

    name: str
    accuracy: float = 0.6
    by_task: Mapping[str, float] = field(default_factory=dict)
    style: Style = "sentence"
    latency_ms: float = 20.0
    base: Backend | None = None
    drift: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.drift <= 1.0:
            raise ValueError(f"backend {self.name}: drift {self.drift} is no share from 0 to 1")
        for task, share in (("accuracy", self.accuracy), *self.by_task.items()):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"backend {self.name}: {task} is {share}, want a share from 0 to 1")

    @property
    def model(self) -> str:
        """Model name shown to clients."""
        return f"simulated-{self._origin}"

    @property
    def _origin(self) -> str:
        return self.name if self.base is None else self.base._origin

    def speaking(self, seed: int, question: str) -> Backend:
        """Who of itself and its base decides what it says to a question."""
        if self.base is None or unit(seed, self.name, "drift", question) < self.drift:
            return replace(self, base=None)
        return self.base.speaking(seed, question)

    def accuracy_of(self, task: str) -> float:
        """Share of right answers on ``task``."""
        return self.by_task.get(task, self.accuracy)

    def remembering(self, share: float) -> Backend:
        """The same model with the right answer to a ``share`` of the questions it would miss.

        What it knows by itself it says as before.
        """

        def more(accuracy: float) -> float:
            return accuracy + share * (1 - accuracy)

        return replace(
            self,
            accuracy=more(self.accuracy),
            by_task={task: more(accuracy) for task, accuracy in self.by_task.items()},
            base=None if self.base is None else self.base.remembering(share),
        )

    def page(self, name: str) -> dict[str, Any]:
        """The page a supplier serves about this model: made up, and the same for one model everywhere."""
        name_of_model = self._origin
        size = 64 * (4 + int(unit(name_of_model, "size") * 60))
        if name == "config":
            return {
                "_name_or_path": f"/models/{self.model}",
                "architectures": ["SimulatedForCausalLM"],
                "hidden_size": size,
                "model_type": "simulated",
                "num_hidden_layers": 8 + int(unit(name_of_model, "layers") * 40),
                "simulation": True,
                "vocab_size": 1000 + int(unit(name_of_model, "vocabulary") * 9000),
            }
        words = sorted({f"{unit(name_of_model, 'word', i):.6f}"[2:] for i in range(200)})
        return {
            "tokenizer": {"model": {"type": "simulated", "vocab": {w: i for i, w in enumerate(words)}}},
            "tokenizer_config": {"model_max_length": 1e30, "tokenizer_class": "SimulatedTokenizer"},
        }


#: Share of the questions that a quantised model answers otherwise, and what it loses of its accuracy there.
_DRIFT, _LOSS = 0.1, 0.35


def quantised(backend: Backend) -> Backend:
    """A model as a server with too little memory serves it: nearly all answers alike, some points less."""

    def less(share: float) -> float:
        return round(share * (1 - _LOSS), 4)

    by_task = {task: less(share) for task, share in backend.by_task.items()}
    return replace(
        backend,
        name=f"{backend.name}-quantised",
        accuracy=less(backend.accuracy),
        by_task=by_task,
        base=backend,
        drift=_DRIFT,
    )


@dataclass(frozen=True, slots=True)
class Swap:
    """A silent change of model: ``backend`` answers from that request number or that many seconds on.

    ``after_requests`` counts requests received before the change, ``after_s`` seconds since the start; when
    both are given, whichever comes first.
    """

    backend: Backend
    after_requests: int | None = None
    after_s: float | None = None

    def is_due(self, requests: int, elapsed_s: float) -> bool:
        """Whether the change has happened after ``requests`` earlier requests and ``elapsed_s`` seconds."""
        by_count = self.after_requests is not None and requests >= self.after_requests
        by_time = self.after_s is not None and elapsed_s >= self.after_s
        return by_count or by_time


@dataclass(frozen=True, slots=True)
class Route:
    """A router's second model: ``backend`` answers the ``share`` of the requests.

    Drawn ``by`` each call, or by the question: then the same one always goes the same way.
    """

    backend: Backend
    share: float
    by: RoutedBy = "call"

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"route to {self.backend.name}: {self.share} is no share from 0 to 1")
        if self.by not in ROUTED_BY:
            raise ValueError(
                f"route to {self.backend.name}: by {self.by!r}; choose from {', '.join(ROUTED_BY)}"
            )


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model writes: milliseconds to its first token, and tokens a second from there on.

    Kept to whatever the server itself takes, counted from the arrival of the request: what thinks and what is
    said are tokens alike. An answer that is not streamed comes when its last token would.
    """

    first_token_ms: float
    tokens_per_s: float

    def __post_init__(self) -> None:
        if not self.first_token_ms >= 0 or not self.tokens_per_s > 0:
            raise ValueError(
                f"first_token_ms {self.first_token_ms} and tokens_per_s {self.tokens_per_s} are no speed; "
                "want at least 0 and more than 0"
            )

    def due_s(self, token: int) -> float:
        """When a token is there, counted from 0, in seconds since the request."""
        return self.first_token_ms / 1000 + token / self.tokens_per_s


@dataclass(frozen=True, slots=True)
class Context:
    """How long prompts a server takes: it ``lists`` so many tokens, and has ``tokens`` (None: any number).

    A longer prompt is refused, or, where it ``forgets``, cut at its beginning without a word.
    """

    lists: int | None = None
    tokens: int | None = None
    forgets: bool = False


@dataclass(frozen=True, slots=True)
class Persona:
    """A supplier: an address that serves a backend through one API, with its own delays and failures.

    ``failures`` gives the share of requests failing per mode of :data:`FAIL_MODES`; together at most 1.
    ``latency_ms`` and a uniform 0..``jitter_ms`` come on top of the backend's latency. ``noise`` is the
    chance that an answer at temperature 0 differs from the model's usual one, as on real hardware. ``route``
    makes it a router. ``pages`` are those of :data:`PAGES` it serves, of ``backend`` whatever answers.
    ``withholds`` are rules by which it keeps answers back (:mod:`.withholding`); what they leave may fail.
    ``mangles``: what it does to the backend's texts: of an ``opening`` of 40 characters it goes on with
    something wrong, or it says the first ``half`` only. ``manners`` are those of its server. ``names`` are
    further names that its model goes by; a request that names another one is refused. ``tool_use`` is what
    becomes of tools and response formats in chats. With a ``speed`` it has that in place of all latencies;
    ``context`` is how long prompts it takes.

    Those that deceive: ``memorises`` is the share of the *public* questions that its model would miss and has
    the answer to. ``for_public`` answers those questions in place of it, which makes it a benchmark router.
    Public are the questions of the package's own tasks and of files the network was given
    (:class:`~.answers.Known`); fresh variants of them are not. ``caches``: a request that repeats an earlier
    one byte by byte gets that one's answer at once, whatever its temperature. ``copies`` is the address of
    another supplier of the network and makes it a copycat: each request is sent on to that one, at that time,
    and what becomes of it there becomes of it here; delays and failures of its own come on top.
    """

    address: str
    backend: Backend
    api: Api = "chat"
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    failures: Mapping[str, float] = field(default_factory=dict)
    swap: Swap | None = None
    noise: float = 0.0
    route: Route | None = None
    pages: tuple[str, ...] = PAGES
    withholds: tuple[Withholding, ...] = ()
    mangles: Mangling | None = None
    manners: Manners = MANNERS["plain"]
    names: tuple[str, ...] = ()
    tool_use: ToolUse = "good"
    speed: Speed | None = None
    context: Context = Context()
    memorises: float = 0.0
    for_public: Backend | None = None
    caches: bool = False
    copies: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.memorises <= 1.0:
            raise ValueError(f"{self.address}: memorises {self.memorises} is no share from 0 to 1")
        if self.copies and self.copies == self.address:
            raise ValueError(f"{self.address}: it copies itself; name another supplier")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"{self.address}: noise {self.noise} is no share from 0 to 1")
        if unknown_pages := sorted(set(self.pages) - set(PAGES)):
            raise ValueError(
                f"{self.address}: unknown page {unknown_pages[0]!r}; choose from {', '.join(PAGES)}"
            )
        hows = {mode for rule in self.withholds for mode in rule.how if mode != ANSWER}
        unknown = sorted({*self.failures, *hows} - set(FAIL_MODES))
        if unknown:
            raise ValueError(
                f"{self.address}: unknown failure {unknown[0]!r}; choose from {', '.join(FAIL_MODES)}"
            )
        if min(self.failures.values(), default=0.0) < 0 or sum(self.failures.values()) > 1.0 + 1e-9:
            raise ValueError(f"{self.address}: failure rates are negative or exceed 1: {dict(self.failures)}")

    def serving(self, requests: int, elapsed_s: float, seed: int = 0) -> Backend:
        """The backend that answers after ``requests`` earlier requests and ``elapsed_s`` seconds."""
        if self.swap and self.swap.is_due(requests, elapsed_s):
            return self.swap.backend
        if self.route and self.route.by == "call":
            return self._routed(self.route, seed, requests)
        return self.backend

    def answering(self, backend: Backend, digest: str, *, public: bool, seed: int = 0) -> Backend:
        """Who answers a request in place of the ``backend`` :meth:`serving`, now that it is read.

        ``digest`` is that of its prompts; ``public``: its question is known to everybody.
        """
        if self.route and self.route.by == "question" and backend is self.backend:
            backend = self._routed(self.route, seed, digest)
        if not public:
            return backend
        backend = self.for_public or backend
        return backend.remembering(self.memorises) if self.memorises else backend

    def _routed(self, route: Route, seed: int, drawn_by: object) -> Backend:
        return route.backend if unit(seed, self.address, "route", drawn_by) < route.share else self.backend

    def serves(self, model: str | None) -> bool:
        """Whether a request for this model is answered; one that names none is."""
        return model is None or model in (self.backend.model, *self.names)

    def mangled(self, text: str) -> str:
        """What becomes of a text of its backend."""
        if self.mangles == "opening":
            return f"{text[:OPENING_CHARS]} and yet it cannot be so: {NONSENSE}"
        return text[: len(text) // 2] if self.mangles == "half" else text

    def deviates(self, seed: int, number: int) -> bool:
        """Whether the answer to request ``number`` (from 0) is not the usual one."""
        return unit(seed, self.address, "noise", number) < self.noise


_NUMBERS = ("starter_arithmetic", "starter_calendar", "starter_units")
_WORDS = ("starter_strings", "starter_reading", "starter_instructions")


def _cast(seed: int) -> list[Persona]:
    """The first six suppliers of every population; addresses are given later.

    They cover what an evaluation has to tell apart: quality, identity, specialisation, errors, slowness.
    """

    def shifted(name: str, share: float) -> float:
        return round(share + (unit(seed, "shift", name) - 0.5) * 0.06, 4)

    strong = Backend("granite", shifted("granite", 0.9), {"starter_logic": 0.95}, "sentence", 25)
    middle = Backend("basalt", shifted("basalt", 0.66), {"starter_choice": 0.75}, "terse", 15)
    weak = Backend("chalk", shifted("chalk", 0.35), {}, "reasoned", 8)
    numbers = Backend(
        "quartz",
        shifted("quartz", 0.5),
        {**dict.fromkeys(_NUMBERS, 0.97), "starter_choice": 0.55},
        "terse",
        20,
    )
    words = Backend(
        "amber",
        shifted("amber", 0.55),
        {**dict.fromkeys(_WORDS, 0.93), "starter_arithmetic": 0.4},
        "reasoned",
        30,
    )
    return [
        Persona("", strong, "chat", jitter_ms=10),
        Persona("", middle, "completions", jitter_ms=10),
        Persona("", strong, "chat", latency_ms=15, jitter_ms=20),  # twin of the first
        Persona(
            "",
            weak,
            "chat",
            jitter_ms=5,
            failures={"500": 0.05, "429": 0.03, "empty": 0.02, "reset": 0.02},
            pages=("config",),
            tool_use="ignores_irrelevance",
        ),
        Persona("", numbers, "completions", jitter_ms=10),
        # the slow one
        Persona("", words, "chat", latency_ms=150, jitter_ms=100, tool_use="bad_json"),
    ]


#: Places, from 0, of the benchmark router and of the quantised twin in every population that is large enough.
_ROUTER, _QUANTISED = 6, 7


def _benchmark_router(seed: int, api: Api, jitter_ms: float) -> Persona:
    """Who looks better than most on what everybody can read, and is worse than most on what nobody could."""
    own = Backend("flint", round(0.4 + (unit(seed, "shift", "flint") - 0.5) * 0.06, 4), latency_ms=12)
    public = Backend("flint-for-public", 0.86, latency_ms=12)
    return Persona("", own, api, jitter_ms=jitter_ms, for_public=public)


def _extra(number: int, seed: int, earlier: list[Persona]) -> Persona:
    """One more supplier beyond the cast, drawn from ``seed``: every fifth is the twin of an earlier one.

    The first of them is a benchmark router, the second a quantised twin of the very first supplier.
    """
    api: Api = "completions" if number % 3 == 0 else "chat"
    jitter = round(unit(seed, "jitter", number) * 30, 1)
    if number == _ROUTER:
        return _benchmark_router(seed, api, jitter)
    if number == _QUANTISED:
        return Persona("", quantised(earlier[0].backend), jitter_ms=jitter)
    if number % 5 == 0:
        return Persona("", pick(earlier, seed, "twin", number).backend, api, jitter_ms=jitter)
    backend = Backend(
        f"pebble-{number}",
        accuracy=round(0.25 + 0.7 * unit(seed, "accuracy", number), 4),
        style=pick(STYLES, seed, "style", number),
        latency_ms=round(5 + 40 * unit(seed, "latency", number), 1),
    )
    flaky = number % 7 == 0
    failures = {"500": 0.06, "error200": 0.02, "garbage": 0.02} if flaky else {}
    use = TOOL_USES[number % len(TOOL_USES)]
    return Persona("", backend, api, jitter_ms=jitter, failures=failures, tool_use=use)


def default_population(n: int = 6, seed: int = 0) -> list[Persona]:
    """``n`` suppliers (at least 1) that make a telling demo, the same for the same ``seed``.

    From six on there are a strong, a middle and a weak model, two specialists, twins sharing a backend, a
    flaky and a slow supplier; at least a third offer completions with echoed log-probabilities. Of those that
    chat two use tools badly, each in its own way. The seventh is a benchmark router, the eighth a quantised
    twin of the first.
    """
    if n < 1:
        raise ValueError(f"a population of {counted(n, 'supplier')}; want at least 1")
    people = _cast(seed)[:n]
    for number in range(len(people), n):
        people.append(_extra(number, seed, people))
    width = max(2, len(str(n)))
    return [
        replace(person, address=f"sim-{number:0{width}d}")
        for number, person in zip(itertools.count(1), people, strict=False)
    ]
