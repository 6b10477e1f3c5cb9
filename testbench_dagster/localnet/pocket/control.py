"""Changes a simulated Pocket network while it runs, and tells what happened: ``/_sim/…`` on the first node.

``GET``: ``describe``, ``ledger?since=N`` (accepted relays after number N), ``refusals?since=N``, ``counts``,
``session?app=…&height=…``. ``POST /_sim/<action>`` with a JSON object changes it; a wrong one gets HTTP 400
naming the field. The actions are the methods of :class:`PocketControl`, each with the fields it takes.
Suppliers, applications and gateways are named by name or address. For callers on this machine only.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import orjson
from aiohttp import web

from testbench_dagster.localnet.control import DECEPTIONS, Control, Fields, chosen
from testbench_dagster.localnet.pocket.chain import UPOKT, Endpoint, QueryError, Shape, StakedSupplier
from testbench_dagster.localnet.pocket.faults import FaultRule
from testbench_dagster.localnet.pocket.gateway import GatewayFaults
from testbench_dagster.localnet.pocket.node import NodeFaults
from testbench_dagster.localnet.pocket.wire import SESSION, session_values, to_json
from testbench_dagster.localnet.requests import BadRequestError
from testbench_dagster.transports.pocket.messages import RpcType

if TYPE_CHECKING:
    from testbench_dagster.localnet.pocket.envelopes import Served
    from testbench_dagster.localnet.pocket.miner import Flavour, RelayMiner, Validation
    from testbench_dagster.localnet.pocket.network import PocketNet

Answer = dict[str, Any]

_MAX_BLOCKS = 1_000_000
_MAX_STAKE = 10**15
_RPC_TYPES = tuple(each.name.lower() for each in RpcType)
_PARAMS = (
    "num_blocks_per_session",
    "grace_period_end_offset_blocks",
    "claim_window_open_offset_blocks",
    "claim_window_close_offset_blocks",
    "proof_window_open_offset_blocks",
    "proof_window_close_offset_blocks",
    "compute_units_to_tokens_multiplier",
    "compute_unit_cost_granularity",
    "num_suppliers_per_session",
)


class PocketControl:
    """The actions on one network."""

    def __init__(self, net: PocketNet) -> None:
        self._net = net
        # whatever changes a persona changes it over relays and over plain HTTP
        self._personas = [Control(net.backends), Control(net.plain)]
        self._actions: Mapping[str, Callable[[Fields], Answer | Awaitable[Answer]]] = {
            "advance": self.advance,
            "roll": self.roll,
            "height": self.height,
            "params": self.params,
            "service": self.service,
            "join": self.join,
            "leave": self.leave,
            "return": self.return_,
            "restake": self.restake,
            "url": self.url,
            "budget": self.budget,
            "fault": self.fault,
            "clear": self.clear,
            "swap": self.swap,
            "fail": self.fail,
            "deceive": self.deceive,
            "tools": self.tools,
            "app": self.app,
            "unstake_app": self.unstake_app,
            "delegate": self.delegate,
            "undelegate": self.undelegate,
            "account": self.account,
            "host": self.host,
            "node": self.node,
            "gateway": self.gateway,
        }

    async def respond(self, request: web.BaseRequest) -> web.Response:
        """Answer a request below ``/_sim/``."""
        if not _from_here(request.remote):
            return _error(403, "the simulation is changed from its own machine only")
        name = request.path.removeprefix("/_sim/")
        try:
            if request.method == "GET":
                return _json(200, self._read(name, request.query))
            # a page in a browser could not send this type unasked
            if request.content_type != "application/json":
                return _error(400, "Content-Type must be application/json")
            return _json(200, await self.handle(name, await request.content.read()))
        except (BadRequestError, QueryError, ValueError) as error:
            return _error(400, str(error))

    async def handle(self, action: str, raw: bytes) -> Answer:
        """Do what a request asks; the answer says what is so now.

        Raises:
            BadRequestError: the action, a field or a value is wrong.
            QueryError: the chain refuses.
        """
        method, fields = chosen(self._actions, action, raw)
        answer = method(fields)
        return answer if isinstance(answer, dict) else await answer

    def _read(self, name: str, query: Mapping[str, str]) -> Any:
        net = self._net
        if name == "describe":
            return net.describe()
        if name == "counts":
            return {"simulation": True, "suppliers": net.ledger.counts()}
        if name in ("ledger", "refusals"):
            relays = net.ledger.since(_number(query, "since"), accepted=name == "ledger")
            return {"simulation": True, "last": len(net.ledger.relays), "relays": relays}
        if name == "session":
            paid = self._paid(query.get("app", ""))
            session = net.chain.session(
                paid.address, paid.service, _number(query, "height") or net.chain.height
            )
            return {"simulation": True, "session": to_json(SESSION, session_values(session))}
        raise BadRequestError(
            f"no page {name!r}; there are: describe, ledger, refusals, counts, session; actions are posted"
        )

    # ---------------------------------------------------------------------------------------- blocks

    def advance(self, fields: Fields) -> Answer:
        """``blocks`` more blocks (1)."""
        blocks = fields.whole("blocks", 1, _MAX_BLOCKS) if fields.has("blocks") else 1
        fields.done()
        self._net.chain.clock.advance(blocks)
        return self._height()

    def roll(self, fields: Fields) -> Answer:
        """To the first block of the next session, or ``offset`` blocks after it."""
        offset = fields.whole("offset", 0, _MAX_BLOCKS) if fields.has("offset") else 0
        fields.done()
        chain = self._net.chain
        _, end, _ = chain.session_at(chain.height)
        chain.clock.reach(end + 1 + offset)
        return self._height()

    def height(self, fields: Fields) -> Answer:
        """To ``height``, which is not below the one now."""
        height = fields.whole("height", 1, 2**62)
        fields.done()
        self._net.chain.clock.reach(height)
        return self._height()

    def params(self, fields: Fields) -> Answer:
        """Other parameters, by their names on chain, from the start of the next session on."""
        changes = {name: fields.whole(name, 0, 2**62) for name in _PARAMS if fields.has(name)}
        fields.done()
        if not changes:
            raise BadRequestError(f"nothing changes; give any of: {', '.join(_PARAMS)}")
        return {"from_height": self._net.chain.change_params(**changes), **changes}

    def service(self, fields: Fields) -> Answer:
        """Another price of a relay of ``service``, in compute units, from the next session on."""
        name, units = fields.text("service"), fields.whole("compute_units_per_relay", 1, 2**62)
        fields.done()
        chain = self._net.chain
        chain.add_service(dataclasses.replace(chain.service(name), compute_units_per_relay=units))
        _, end, _ = chain.session_at(chain.height)
        return {"from_height": end + 1, "service": name, "compute_units_per_relay": units}

    def _height(self) -> Answer:
        chain = self._net.chain
        start, end, number = chain.session_at(chain.height)
        return {"height": chain.height, "session": {"start": start, "end": end, "number": number}}

    # ------------------------------------------------------------------------------------- suppliers

    def join(self, fields: Fields) -> Answer:
        """A new supplier ``name``, with what plain localnet has and with what is of this network alone.

        The former are ``backend``, ``accuracy``, ``latency_ms``, ``api``, ``tools`` and ``quantised``.

        ``host`` (the next in turn), ``stake_pokt``, ``rpc_type``; ``now``: it counts from this session on.
        """
        persona = {
            "address": fields.name("name") if fields.has("name") else None,
            **{
                name: fields.take(name)
                for name in ("backend", "accuracy", "latency_ms", "api", "tools", "quantised")
            },
        }
        host = self._host(fields) if fields.has("host") else None
        stake = fields.whole("stake_pokt", 0, _MAX_STAKE) * UPOKT if fields.has("stake_pokt") else None
        rpc_type = RpcType[fields.one_of("rpc_type", _RPC_TYPES, "rest").upper()]
        now = fields.flag("now", False)
        fields.done()
        given = {name: value for name, value in persona.items() if value is not None}
        for control in self._personas:
            told = control.join(Fields(given))
            given.setdefault("address", told["address"])  # both nets must choose the same
        supplier = self._net.backends.suppliers[given["address"]]
        served = self._net.settle(supplier.persona, host=host, stake=stake, rpc_type=rpc_type, at_once=now)
        return self._supplier_answer(served.name)

    def leave(self, fields: Fields) -> Answer:
        """``supplier`` unstakes: it counts to the end of the session; with ``now`` it is gone at once.

        Its miner goes on answering for sessions it was in.
        """
        _, served = self._served(fields)
        now = fields.flag("now", False)
        fields.done()
        last = self._net.chain.unstake_supplier(served.operator, at_once=now)
        return {**self._supplier_answer(served.name), "last_height": last}

    def return_(self, fields: Fields) -> Answer:
        """``supplier`` stakes again; it counts from the next session on, or with ``now`` from this one."""
        miner, served = self._served(fields)
        now = fields.flag("now", False)
        fields.done()
        if self._net.chain.stake(served.operator, self._net.chain.height) is not None:
            raise BadRequestError(f"supplier {served.name} is staked")
        faults, budget = served.faults.rules, served.budget
        again = self._net.settle(
            served.backend.persona, host=miner, rpc_type=served.rpc_types[0], at_once=now
        )
        again.budget = budget
        self._net.set_faults(again.name, faults)
        return self._supplier_answer(again.name)

    def restake(self, fields: Fields) -> Answer:
        """``supplier`` has ``stake_pokt`` staked."""
        _, served = self._served(fields)
        amount = fields.whole("stake_pokt", 0, _MAX_STAKE) * UPOKT
        fields.done()
        self._net.chain.restake(served.operator, amount)
        return self._supplier_answer(served.name)

    def url(self, fields: Fields) -> Answer:
        """``supplier`` is staked with another ``url``, ``rpc_type`` or ``host`` (it moves there).

        From the next session on, as on the chain, or with ``now`` at once. ``extra`` adds an endpoint to
        those it has. ``backends`` (RPC types) is what its operator has a backend for, staked or not.
        """
        miner, served = self._served(fields)
        chain = self._net.chain
        staked = chain.supplier(served.operator, chain.height)
        offer = staked.offers[0]
        if fields.has("host"):
            self._net.leave_hosts(served.operator)
            miner = self._host(fields)
            miner.suppliers[served.operator] = served
        url = fields.text("url") if fields.has("url") else miner.url
        rpc_type = RpcType[fields.one_of("rpc_type", _RPC_TYPES, served.rpc_types[0].name.lower()).upper()]
        extra = fields.flag("extra", False)
        backends = fields.words("backends", _RPC_TYPES) if fields.has("backends") else None
        now = fields.flag("now", False)
        fields.done()
        endpoint = Endpoint(url, rpc_type)
        endpoints = (*offer.endpoints, endpoint) if extra else (endpoint,)
        served.rpc_types = (
            tuple(RpcType[each.upper()] for each in backends)
            if backends is not None
            else tuple(dict.fromkeys(each.rpc_type for each in endpoints))
        )
        since = self._restaked(staked, served, endpoints, now)
        return {**self._supplier_answer(served.name), "from_height": since}

    def _restaked(
        self, staked: StakedSupplier, served: Served, endpoints: tuple[Endpoint, ...], now: bool
    ) -> int:
        stake = staked.stake
        offers = {served.service: endpoints}
        return self._net.chain.stake_supplier(stake.operator, stake.owner, stake.amount, offers, at_once=now)

    def budget(self, fields: Fields) -> Answer:
        """``supplier`` accepts ``relays`` per session and application; without, what stakes allow."""
        _, served = self._served(fields)
        served.budget = fields.whole("relays", 0, 2**62) if fields.has("relays") else None
        fields.done()
        return self._supplier_answer(served.name)

    def fault(self, fields: Fields) -> Answer:
        """One more fault of ``supplier``: the fields of ``FaultRule``, ``kind`` above all."""
        _, served = self._served(fields)
        kind = fields.text("kind")
        rule: dict[str, Any] = {"rate": fields.number("rate", 1.0, 0.0, 1.0)}
        for name, most in (
            ("from_height", 2**62),
            ("until_height", 2**62),
            ("after", 10**9),
            ("times", 10**9),
        ):
            if fields.has(name):
                rule[name] = fields.whole(name, 0, most)
        for name, high in (("seconds", 3600.0), ("megabytes", 256.0)):
            if fields.has(name):
                rule[name] = fields.number(name, None, 0.0, high)
        fields.done()
        self._net.set_faults(served.name, [*served.faults.rules, FaultRule(kind, **rule)])
        return self._supplier_answer(served.name)

    def clear(self, fields: Fields) -> Answer:
        """``supplier`` has no fault any more."""
        _, served = self._served(fields)
        fields.done()
        self._net.set_faults(served.name, [])
        return self._supplier_answer(served.name)

    def swap(self, fields: Fields) -> Answer:
        """Another model answers for ``supplier`` on relays and plain HTTP: ``swap`` of plain localnet."""
        return self._both("swap", fields, ("backend", "accuracy", "announce"))

    def fail(self, fields: Fields) -> Answer:
        """The backend of ``supplier`` fails on relays and plain HTTP: ``fail`` of plain localnet."""
        return self._both("fail", fields, ("mode", "rate"))

    def deceive(self, fields: Fields) -> Answer:
        """In which ways ``supplier`` deceives, on relays and plain HTTP: ``deceive`` of plain localnet."""
        return self._both("deceive", fields, DECEPTIONS)

    def tools(self, fields: Fields) -> Answer:
        """What becomes of tool calls of ``supplier``: ``tools`` of plain localnet."""
        return self._both("tools", fields, ("kind",))

    def _both(self, action: str, fields: Fields, names: tuple[str, ...]) -> Answer:
        _, served = self._served(fields)
        given = {name: value for name in names if (value := fields.take(name)) is not None}
        fields.done()
        body = orjson.dumps({"address": served.name, **given})
        for control in self._personas:
            control.handle(action, body)
        return self._supplier_answer(served.name)

    # --------------------------------------------------------------------------- apps and the rest

    def app(self, fields: Fields) -> Answer:
        """A new application ``name`` for the service of ``api``, or another stake (``stake_pokt``) of one."""
        net = self._net
        name = fields.name("name")
        api = fields.one_of("api", ("chat", "completions"), "chat")
        stake = fields.whole("stake_pokt", 0, _MAX_STAKE) * UPOKT if fields.has("stake_pokt") else None
        fields.done()
        paid = net.apps.get(name) or net.add_app(name, cast(Any, api))
        if stake is not None:
            app = net.chain.app(paid.address, net.chain.height)
            net.chain.stake_app(dataclasses.replace(app, stake=stake))
        return next(app for app in net.describe()["apps"] if app["name"] == name)

    def unstake_app(self, fields: Fields) -> Answer:
        """``app`` unstakes and is active to the end of the session."""
        paid = self._paid(fields.text("app"))
        fields.done()
        return {"app": paid.address, "last_height": self._net.chain.unstake_app(paid.address)}

    def delegate(self, fields: Fields) -> Answer:
        """``app`` delegates to ``gateway``, which stakes if it did not."""
        net = self._net
        paid = self._paid(fields.text("app"))
        name = fields.name("gateway", "gateway")
        fields.done()
        address = net.gateways.get(name) or name
        if address == name and not any(name == known for known in net.gateways.values()):
            address = net.add_gateway(name)
        net.chain.delegate(paid.address, address)
        return {"app": paid.address, "gateways": list(net.chain.app(paid.address, net.chain.height).gateways)}

    def undelegate(self, fields: Fields) -> Answer:
        """``app`` no longer delegates to ``gateway``, which may sign to the end of the session."""
        net = self._net
        paid = self._paid(fields.text("app"))
        name = fields.name("gateway", "gateway")
        fields.done()
        last = net.chain.undelegate(paid.address, net.gateways.get(name, name))
        return {"app": paid.address, "last_height": last}

    def account(self, fields: Fields) -> Answer:
        """The account ``address`` (or of a supplier, app, gateway by name): ``shape``, ``hidden`` key."""
        net = self._net
        who = fields.text("address")
        found = net.find(who)
        address = net.gateways.get(who, who) if found is None else found[1].operator
        if who in net.apps:
            address = net.apps[who].address
        known = net.chain.account(address, net.chain.height)
        shape = fields.one_of("shape", ("base", "module", "vesting"), known.shape)
        hidden = fields.flag("hidden", known.public_key is None)
        fields.done()
        net.chain.set_shape(address, cast(Shape, shape))
        net.chain.set_public_key(address, None if hidden else net.public_keys[address])
        return {"address": address, "shape": shape, "hidden": hidden}

    async def host(self, fields: Fields) -> Answer:
        """``host``: ``up``, ``lag_blocks`` (negative: ahead), ``flavour``, ``validation``, ``timeout_s``."""
        miner = self._host(fields)
        up = fields.flag("up", miner.up)
        lag = fields.whole("lag_blocks", -1000, 1000) if fields.has("lag_blocks") else miner.lag_blocks
        flavour = fields.one_of("flavour", ("classic", "ha"), miner.flavour)
        validation = fields.one_of("validation", ("eager", "optimistic"), miner.validation)
        timeout_s = fields.number("timeout_s", miner.timeout_s, 0.01, 3600.0)
        fields.done()
        miner.lag_blocks, miner.timeout_s = lag, timeout_s
        miner.flavour, miner.validation = cast("Flavour", flavour), cast("Validation", validation)
        await (miner.start() if up else miner.stop())
        return miner.describe()

    def node(self, fields: Fields) -> Answer:
        """Node number ``node`` (0) has these faults and no others: the fields of ``NodeFaults``."""
        net = self._net
        number = fields.whole("node", 0, len(net.nodes) - 1) if fields.has("node") else 0
        faults: dict[str, Any] = {
            name: fields.flag(name, False)
            for name in ("catching_up", "truncate", "garbage", "down", "no_history", "old")
        }
        if fields.has("status"):
            faults["status"] = fields.whole("status", 400, 599)
        if fields.has("lag_blocks"):
            faults["lag_blocks"] = fields.whole("lag_blocks", 0, _MAX_BLOCKS)
        faults["slow_s"] = fields.number("slow_s", 0.0, 0.0, 3600.0)
        fields.done()
        net.nodes[number].faults = NodeFaults(**faults)
        return {"node": number, **net.nodes[number].describe()}

    def gateway(self, fields: Fields) -> Answer:
        """The PATH gateway is ``delegated`` or not, and has these faults: the fields of ``GatewayFaults``."""
        gateway = self._net.gateway
        given = {f.name: fields.take(f.name) for f in dataclasses.fields(GatewayFaults)}
        delegated = fields.flag("delegated", gateway.delegated)
        fields.done()
        gateway.faults = GatewayFaults(**{n: v for n, v in given.items() if v is not None})
        gateway.delegated = delegated
        return gateway.describe()

    # ------------------------------------------------------------------------------------------ names

    def _served(self, fields: Fields) -> tuple[RelayMiner, Served]:
        who = fields.name("supplier")
        found = self._net.find(who)
        if found is None:
            raise BadRequestError(f"supplier {who!r} is nobody's name or address; see /_sim/describe")
        return found

    def _paid(self, who: str) -> Any:
        for paid in self._net.apps.values():
            if who in (paid.name, paid.address):
                return paid
        raise BadRequestError(f"app {who!r} is none; there are: {', '.join(self._net.apps)}")

    def _host(self, fields: Fields) -> RelayMiner:
        name = fields.name("host")
        for miner in self._net.miners:
            if miner.name == name:
                return miner
        known = ", ".join(miner.name for miner in self._net.miners)
        raise BadRequestError(f"host {name!r} is none; there are: {known}")

    def _supplier_answer(self, name: str) -> Answer:
        return next(each for each in self._net.describe()["suppliers"] if each["name"] == name)


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdecimal():
        raise BadRequestError(f"{name} must be a whole number from 0")
    return int(text)


def _from_here(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False


def _json(status: int, payload: Any) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(payload), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "code": status}
    return _json(status, {"error": error})
