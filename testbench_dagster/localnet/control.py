"""Changes a simulated network while it runs: who is there, what answers, what fails, how high the chain is.

``POST /control/<action>`` with a JSON object; a wrong one gets HTTP 400 naming the field. The actions are the
methods of :class:`Control`, each with the fields it takes.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson

from testbench_dagster.localnet.manners import MANNERS
from testbench_dagster.localnet.personas import (
    FAIL_MODES,
    ROUTED_BY,
    TOOL_USES,
    Api,
    Backend,
    Persona,
    Route,
    RoutedBy,
    Speed,
    Swap,
    ToolUse,
    quantised,
)
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.requests import BadRequestError
from testbench_dagster.localnet.withholding import ANSWER, WHENS, Withholding

if TYPE_CHECKING:
    from testbench_dagster.localnet.server import Localnet
    from testbench_dagster.localnet.supplier import Supplier

#: First parts of paths that describe the simulation, so no supplier may have them as its address.
PAGES = ("control", "healthz", "requests", "roster", "stats")
#: The fields of :meth:`Control.deceive` beside the address.
DECEPTIONS = (
    "memorises", "public_accuracy", "public_backend", "routed", "routed_accuracy", "routed_backend",
    "routed_by", "caches", "copies",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MAX_HEIGHT = 2**63 - 1
_MAX_QUESTIONS = 1_000
_MAX_LATENCY_MS = 600_000.0
_MAX_SECONDS = 1e9
_MISSING = object()
_Action = TypeVar("_Action")


@dataclass
class BlockClock:
    """The height of a simulated chain: set by hand, or growing by one every ``block_s`` seconds.

    None as long as nobody set it and no time runs.
    """

    block_s: float | None = None
    _base: int | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._since = time.monotonic()
        if self.block_s is not None:
            if self.block_s <= 0:
                raise ValueError(f"a block every {self.block_s} seconds; want more than 0")
            self._base = 1

    @property
    def height(self) -> int | None:
        """The height now."""
        if self._base is None or self.block_s is None:
            return self._base
        return self._base + int((time.monotonic() - self._since) / self.block_s)

    def set(self, height: int) -> None:
        """Continue from this height."""
        self._base, self._since = height, time.monotonic()


def chosen(actions: Mapping[str, _Action], action: str, raw: bytes) -> tuple[_Action, Fields]:
    """Return the action a request asks for, and the fields of its JSON body.

    Raises:
        BadRequestError: there is no such action, or the body is no JSON object.
    """
    method = actions.get(action)
    if method is None:
        raise BadRequestError(f"no action {action!r}; there are: {', '.join(actions)}")
    try:
        body = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return method, Fields(body)


class Control:
    """The actions on one network."""

    def __init__(self, net: Localnet) -> None:
        self._net = net
        personas = [supplier.persona for supplier in net.suppliers.values()]
        self._backends = {p.backend.name: p.backend for p in personas}
        self._backends |= {p.swap.backend.name: p.swap.backend for p in personas if p.swap}
        self._backends |= {p.route.backend.name: p.route.backend for p in personas if p.route}
        self._backends |= {p.for_public.name: p.for_public for p in personas if p.for_public}
        self._actions: Mapping[str, Callable[[Fields], dict[str, Any]]] = {
            "join": self.join,
            "leave": self.leave,
            "return": self.return_,
            "swap": self.swap,
            "fail": self.fail,
            "withhold": self.withhold,
            "deceive": self.deceive,
            "manners": self.manners,
            "tools": self.tools,
            "speed": self.speed,
            "learn": self.learn,
            "height": self.height,
        }

    def handle(self, action: str, raw: bytes) -> dict[str, Any]:
        """Do what a request asks; the answer says what is so now.

        Raises:
            BadRequestError: the action, a field or a value is wrong.
        """
        method, fields = chosen(self._actions, action, raw)
        return method(fields)

    def join(self, fields: Fields) -> dict[str, Any]:
        """A new supplier: ``address``, ``backend``, ``accuracy``, ``latency_ms``, ``api``, ``manners``.

        ``tools`` is a kind of :data:`~.personas.TOOL_USES`. All are optional. The name of a backend that is
        there makes a twin, with ``quantised: true`` one that serves a quantised form of it.
        """
        known = self._net.suppliers
        address = fields.name("address", self._free_address())
        if address in known:
            remedy = "let it return" if not known[address].present else "choose another"
            raise BadRequestError(f"address {address!r} is taken; {remedy}")
        if address in PAGES:
            raise BadRequestError(f"address {address!r} is a page of the simulation; choose another")
        backend = self._backend(fields, f"model-of-{address}")
        latency = fields.number("latency_ms", None, 0.0, _MAX_LATENCY_MS)
        api = fields.one_of("api", ("chat", "completions"), "chat")
        manners = MANNERS[fields.one_of("manners", tuple(MANNERS), "plain")]
        use = cast(ToolUse, fields.one_of("tools", TOOL_USES, "good"))
        less = fields.flag("quantised", False)
        fields.done()
        if less and backend.base is not None:
            raise BadRequestError(f"backend {backend.name!r} is quantised; name the one that it is made of")
        self._backends.setdefault(backend.name, backend)
        if less:
            backend = quantised(backend)
            self._backends.setdefault(backend.name, backend)
        if latency is not None:
            backend = dataclasses.replace(backend, latency_ms=latency)
        self._net.add(Persona(address, backend, cast(Api, api), manners=manners, tool_use=use))
        return self._net.describe(address)

    def leave(self, fields: Fields) -> dict[str, Any]:
        """``address`` is no longer on the roster and answers HTTP 503."""
        return self._set_present(fields, False)

    def return_(self, fields: Fields) -> dict[str, Any]:
        """``address`` is back."""
        return self._set_present(fields, True)

    def swap(self, fields: Fields) -> dict[str, Any]:
        """Another model answers for ``address``: ``backend``, ``accuracy`` or both.

        With ``announce: true`` the model's name changes on the roster and in answers; otherwise it stays.
        """
        supplier = self._supplier(fields)
        if not fields.has("backend") and not fields.has("accuracy"):
            raise BadRequestError("backend or accuracy must be given: what shall answer from now on")
        persona = supplier.persona
        before = supplier.backend()
        share = fields.number("accuracy", before.accuracy, 0.0, 1.0)
        backend = self._backend(fields, f"{before.name}-at-{share:g}")
        announce = fields.flag("announce", False)
        fields.done()
        self._backends.setdefault(backend.name, backend)
        backend = dataclasses.replace(backend, latency_ms=before.latency_ms)
        # whoever knows it by its old name is answered, as most providers do for a while
        names = tuple(dict.fromkeys((*persona.names, persona.backend.model)))
        supplier.persona = (
            dataclasses.replace(persona, backend=backend, swap=None, names=names)
            if announce
            else dataclasses.replace(persona, swap=Swap(backend, after_requests=0))
        )
        return self._net.describe(persona.address)

    def fail(self, fields: Fields) -> dict[str, Any]:
        """A share ``rate`` of the requests to ``address`` fails by ``mode``, and by no other."""
        supplier = self._supplier(fields)
        mode = fields.one_of("mode", FAIL_MODES, "500")
        rate = fields.number("rate", 1.0, 0.0, 1.0)
        fields.done()
        supplier.persona = dataclasses.replace(supplier.persona, failures={mode: rate} if rate else {})
        return {**self._net.describe(supplier.persona.address), "failures": dict(supplier.persona.failures)}

    def withhold(self, fields: Fields) -> dict[str, Any]:
        """``address`` keeps answers back by one rule, or by none without ``how`` (see :mod:`.withholding`).

        ``how`` is a list, the other fields are those of a rule: ``when``, ``only``, ``parameter``, ``for_s``,
        ``dark_s``, ``after``, ``looks_up``.
        """
        supplier = self._supplier(fields)
        how = fields.words("how", (*FAIL_MODES, ANSWER)) if fields.has("how") else []
        given: dict[str, Any] = {
            "when": fields.one_of("when", WHENS, "wrong"),
            "for_s": fields.number("for_s", None, 0.0, _MAX_SECONDS),
            "dark_s": fields.number("dark_s", None, 0.0, _MAX_SECONDS),
            "looks_up": fields.flag("looks_up", False),
        }
        given |= {name: fields.text(name) for name in ("only", "parameter") if fields.has(name)}
        given |= {"after": fields.whole("after", 1, _MAX_HEIGHT)} if fields.has("after") else {}
        fields.done()
        rule = {name: value for name, value in given.items() if value is not None}
        try:
            rules = (Withholding(tuple(how), **rule),) if how else ()
        except ValueError as error:
            raise BadRequestError(str(error)) from None
        supplier.persona = dataclasses.replace(supplier.persona, withholds=rules)
        return {**self._net.describe(supplier.persona.address), "withholds": how}

    def deceive(self, fields: Fields) -> dict[str, Any]:
        """``address`` deceives in the ways that are given, and in no other: without any it is honest.

        ``memorises``: the share of public questions that it would miss and has the answer to.
        ``public_accuracy``: another model answers public questions, as well as this says. ``routed``: the
        share of requests that another model answers, of ``routed_accuracy``, drawn by ``routed_by``: each
        call, or the question. ``caches``: repeated requests get the earlier answer. ``copies``: the address
        of who answers for it. ``public_backend`` and ``routed_backend`` name these models, which may be there
        already.
        """
        supplier = self._supplier(fields)
        persona = supplier.persona
        own = persona.backend
        changed: dict[str, Any] = {
            "memorises": fields.number("memorises", 0.0, 0.0, 1.0),
            "for_public": self._second("public", fields, own),
            "caches": fields.flag("caches", False),
            "copies": fields.name("copies") if fields.has("copies") else "",
            "route": None,
        }
        share = fields.number("routed", None, 0.0, 1.0)
        by = cast(RoutedBy, fields.one_of("routed_by", ROUTED_BY, "call"))
        backend = self._second("routed", fields, own)
        fields.done()
        if (share is None) is not (backend is None):
            raise BadRequestError(
                "routed, a share, goes with routed_accuracy or routed_backend: to which model"
            )
        if share is not None and backend is not None:
            changed["route"] = Route(backend, share, by)
        try:
            persona = dataclasses.replace(persona, **changed)
            self._net.require_copied(persona)
        except ValueError as error:
            raise BadRequestError(str(error)) from None
        for second in (changed["for_public"], backend):
            if second is not None:
                self._backends.setdefault(second.name, second)
        supplier.persona = persona
        return self._net.describe(persona.address)

    def manners(self, fields: Fields) -> dict[str, Any]:
        """The server of ``address`` is of the ``kind`` in :data:`~.manners.MANNERS` now."""
        supplier = self._supplier(fields)
        kind = fields.one_of("kind", tuple(MANNERS), "plain")
        fields.done()
        supplier.persona = dataclasses.replace(supplier.persona, manners=MANNERS[kind])
        return {**self._net.describe(supplier.persona.address), "manners": kind}

    def tools(self, fields: Fields) -> dict[str, Any]:
        """What becomes of the tool calls of ``address`` now: a ``kind`` of :data:`~.personas.TOOL_USES`."""
        supplier = self._supplier(fields)
        kind = cast(ToolUse, fields.one_of("kind", TOOL_USES, "good"))
        fields.done()
        supplier.persona = dataclasses.replace(supplier.persona, tool_use=kind)
        return {**self._net.describe(supplier.persona.address), "tools": kind}

    def speed(self, fields: Fields) -> dict[str, Any]:
        """``address`` has ``first_token_ms`` to its first token and ``tokens_per_s`` from there on.

        Without both it has its latencies again.
        """
        supplier = self._supplier(fields)
        first = fields.number("first_token_ms", None, 0.0, _MAX_LATENCY_MS)
        rate = fields.number("tokens_per_s", None, 0.001, 1e6)
        fields.done()
        if (first is None) is not (rate is None):
            raise BadRequestError("first_token_ms and tokens_per_s go together; give both, or none")
        speed = None if first is None or rate is None else Speed(first, rate)
        supplier.persona = dataclasses.replace(supplier.persona, speed=speed)
        return {**self._net.describe(supplier.persona.address), "first_token_ms": first, "tokens_per_s": rate}

    def learn(self, fields: Fields) -> dict[str, Any]:
        """All models know further ``questions``: prompts with their answer, wrong ones, and a task.

        Each is ``{"text", "answer", "wrong", "task"}``; they answer rightly as often as they do elsewhere.
        """
        questions = [_question(one) for one in fields.objects("questions", _MAX_QUESTIONS)]
        fields.done()
        self._net.answers.learn(questions)
        return {"learnt": len(questions)}

    def height(self, fields: Fields) -> dict[str, Any]:
        """The chain is at ``height`` now."""
        height = fields.whole("height", 0, _MAX_HEIGHT)
        fields.done()
        self._net.clock.set(height)
        return {"height": height}

    def _set_present(self, fields: Fields, present: bool) -> dict[str, Any]:
        supplier = self._supplier(fields)
        fields.done()
        supplier.present = present
        return self._net.describe(supplier.persona.address)

    def _supplier(self, fields: Fields) -> Supplier:
        address = fields.name("address")
        supplier = self._net.suppliers.get(address)
        if supplier is None:
            raise BadRequestError(f"address {address!r} is nobody's; /stats lists all that ever were here")
        return supplier

    def _second(self, what: str, fields: Fields, own: Backend) -> Backend | None:
        """A model beside the supplier's ``own``, as fast as that; None where none is asked for."""
        if not fields.has(f"{what}_backend") and not fields.has(f"{what}_accuracy"):
            return None
        backend = self._backend(fields, f"{own.name}-for-{what}", f"{what}_")
        return dataclasses.replace(backend, latency_ms=own.latency_ms)

    def _backend(self, fields: Fields, default: str, prefix: str = "") -> Backend:
        name = fields.name(f"{prefix}backend", default)
        known = self._backends.get(name)
        share = fields.number(f"{prefix}accuracy", 0.6 if known is None else known.accuracy, 0.0, 1.0)
        if known is None:
            return Backend(name, share)
        if share != known.accuracy:
            raise BadRequestError(
                f"{prefix}accuracy {share:g} differs from that of backend {name!r}, {known.accuracy:g}; "
                f"leave it out, or choose another name for {prefix}backend"
            )
        return known

    def _free_address(self) -> str:
        number = len(self._net.suppliers) + 1
        while f"sim-{number:02d}" in self._net.suppliers:
            number += 1
        return f"sim-{number:02d}"


class Fields:
    """Reads a control request field by field; :meth:`done` refuses what nobody asked for."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._seen: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the field is given."""
        return self._body.get(name) is not None

    def name(self, name: str, default: Any = _MISSING) -> str:
        """A short identifier."""
        value = self._take(name, default)
        if value is default:
            return cast(str, default)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise BadRequestError(f"{name} must be 1 to 64 letters, digits, '_' or '-'")
        return value

    def number(self, name: str, default: Any, low: float, high: float) -> Any:
        """A number in a range, or the default as it is."""
        if not self.has(name):
            self._seen.append(name)
            return default
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadRequestError(f"{name} must be a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number in a range; it must be given."""
        value = self._take(name, _MISSING)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequestError(f"{name} must be a whole number from {low} to {high}")
        return value

    def one_of(self, name: str, options: tuple[str, ...], default: str) -> str:
        """One of some words; a number is the word it is written as, as 500 from a command line."""
        value = _word(self._take(name, default))
        if value not in options:
            raise BadRequestError(f"{name} must be one of: {', '.join(options)}")
        return cast(str, value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise BadRequestError(f"{name} must be true or false")
        return value

    def text(self, name: str) -> str:
        """Some text; it must be given."""
        value = self._take(name, _MISSING)
        if not isinstance(value, str) or not 0 < len(value) <= 1000:
            raise BadRequestError(f"{name} must be a text of 1 to 1000 characters")
        return value

    def words(self, name: str, options: tuple[str, ...]) -> list[str]:
        """A list of some words, read as by :meth:`one_of`; it must be given."""
        value = self._take(name, _MISSING)
        words = [_word(each) for each in value] if isinstance(value, list) else None
        if words is None or not all(word in options for word in words):
            raise BadRequestError(f"{name} must be a list of: {', '.join(options)}")
        return words

    def objects(self, name: str, most: int) -> list[Mapping[str, Any]]:
        """A list of objects; it must be given."""
        value = self._take(name, _MISSING)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise BadRequestError(f"{name} must be a list of objects")
        if len(value) > most:
            raise BadRequestError(f"{name} has {len(value)} objects; give at most {most} at a time")
        return value

    def take(self, name: str) -> Any:
        """Whatever is given, None where nothing is: for who checks it elsewhere."""
        return self._take(name, None)

    def done(self) -> None:
        """Refuse fields that were not read."""
        unknown = sorted(set(self._body) - set(self._seen))
        if unknown:
            taken = ", ".join(dict.fromkeys(self._seen))
            raise BadRequestError(f"{unknown[0]} is no field of this action; it takes: {taken}")

    def _take(self, name: str, default: Any) -> Any:
        self._seen.append(name)
        value = self._body.get(name)
        if value is None:
            if default is _MISSING:
                raise BadRequestError(f"{name} must be given")
            return default
        return value


def _question(given: Mapping[str, Any]) -> Known:
    texts = {name: given.get(name, "") for name in ("text", "answer", "task")}
    wrong = given.get("wrong")
    if not all(isinstance(value, str) for value in texts.values()) or not texts["text"].strip():
        raise BadRequestError("questions: each needs a text, and texts as answer and task")
    if not isinstance(wrong, list) or not wrong or not all(isinstance(one, str) for one in wrong):
        raise BadRequestError("questions: each needs wrong, a list of at least one wrong answer")
    return Known(texts["text"], texts["task"], texts["text"], texts["answer"], tuple(wrong))


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
