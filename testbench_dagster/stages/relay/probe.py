"""Asking a supplier what it can do: a short generation, and echoed log-probabilities on completions."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Pause
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.quota import Quota, QuotaDecision
from testbench_dagster.core.relay import Api, Attempt, Endpoint, Relay
from testbench_dagster.core.remedies import remedy_of
from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.relays.money import MoneyQuota, send_paid
from testbench_dagster.relays.pace import PacedOut, PacedTransport, Pacing
from testbench_dagster.stages.plan.remaining import ledger_quota, money_quota
from testbench_dagster.stages.relay.history import transports_to
from testbench_dagster.stages.relay.offers import (
    RESPONSE_FORMAT,
    TOOLS,
    Offer,
    calls_none,
    is_taken,
    wants_offers,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.refusals import reasons_only, refuses_form
from testbench_dagster.transports.registry import supplier_endpoint, transport
from testbench_dagster.transports.variants import Search

if TYPE_CHECKING:
    from testbench_dagster.transports.http import HttpClient

_AT_ONCE = 64
#: How often a question is asked again that a busy server turned down, and the wait before, in seconds.
_AGAIN, _WAIT_S, _LONGEST_WAIT_S = 2, 1.0, 5.0
_QUESTION = "Reply with the single word OK."
#: OpenAI refuses limits below 16.
_GENERATION = {"max_gen_toks": 16, "temperature": 0.0}
#: As many as tasks have at most; chat requests carry the first four.
_STOPS = ("\n\nQ:", "\n\nA:", "\n\nUser:", "</s>", "<|im_end|>", "Question:")
#: Tokens that a reasoning model is given to think: what OpenAI and others advise at least.
REASONING_BUDGET = 16_384
ECHO_REQUEST = {"type": "loglikelihood", "idx": 0, "context": "The sky is", "continuation": " blue"}


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found; ``echo_logprobs`` is None where it was not asked or stayed unknown.

    ``warning``: it can be measured, but should not be so. ``paste``: the line of testbench.yaml that mends
    it.
    """

    supplier: str
    ok: bool
    detail: str
    echo_logprobs: bool | None = None
    warning: bool = False
    paste: str = ""


_ECHO = "echo log-probabilities"
#: What follows from a server without them, and what to do.
_NO_ECHO = (
    "tasks that compare log-probabilities, as multiple choice does, cannot be asked of it: configure them in "
    "a form that takes generated text, or a server that echoes (docs/reference.md#log-probabilities)"
)

#: Task name of the attempts at finding out what suppliers can do.
PROBE_TASK = "capability probe"


def probe_relay(target: Endpoint, request: Mapping[str, Any]) -> Relay:
    """A relay outside any task, unlike any other."""
    return Relay(
        supplier=target.supplier,
        service=target.service,
        task=PROBE_TASK,
        task_hash="",
        epoch=0,
        round=0,
        prompt_id=f"probe-{secrets.token_hex(12)}",
        position=0,
        doc_id=0,
        idx=0,
        repeat=0,
        request=request,
    )


def echo_verdict(attempt: Attempt) -> bool | None:
    """What the outcome of :data:`ECHO_REQUEST` says of the capability; None when it says nothing."""
    if attempt.fault.answered:
        # of a server that has no log-probabilities of prompts every token is impossible
        return attempt.logprob is None or math.isfinite(attempt.logprob)
    # 404: it has no such endpoint; a key that it refuses says nothing
    return False if attempt.fault.row.denies_capability or attempt.status == 404 else None


async def probe_suppliers(workspace: Workspace, suppliers: Sequence[Supplier]) -> list[ProbeResult]:
    """Probe the suppliers, some dozens at a time; results in their order.

    Attempts are not stored; they count under the budget like all others.
    """
    from testbench_dagster.transports.http import HttpClient  # with aiohttp: 0.2 s

    endpoints: dict[str, Endpoint] = {}
    problems: dict[str, str] = {}
    for supplier in suppliers:
        try:
            endpoints[supplier.key] = supplier_endpoint(workspace.config, supplier)
        except ConfigError as error:
            problems[supplier.key] = str(error)
    transports = await asyncio.to_thread(transports_to, workspace, endpoints.values())
    for key, target in endpoints.items():
        problem = transports.problem(target)
        if problem is not None:
            problems[key] = problem
    quota = ledger_quota(workspace.documents, workspace.config.settings.budget)
    money = money_quota(workspace, endpoints)
    pacing, http = Pacing.over(workspace.documents), HttpClient()
    opened = PacedTransport(transports.open(), pacing)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def probe(supplier: Supplier) -> ProbeResult:
        if supplier.key in problems:
            return ProbeResult(supplier.key, False, problems[supplier.key])
        async with turns:
            try:
                offers = (TOOLS, RESPONSE_FORMAT) if wants_offers(workspace.specs, supplier) else ()
                endpoint = endpoints[supplier.key]
                return await _Probe(supplier, endpoint, opened, http, quota, money, offers).result()
            except PacedOut as why:
                return ProbeResult(supplier.key, True, f"not asked: {why}")

    try:
        return list(await asyncio.gather(*map(probe, suppliers)))
    finally:
        await asyncio.to_thread(quota.close)
        if money is not None:
            await asyncio.to_thread(money.close)
        await http.close()
        await opened.close()
        pacing.close()


class _Spent(Exception):
    """The budget grants no more; the text says so."""


class _Probe:
    """The questions to one supplier."""

    def __init__(
        self,
        supplier: Supplier,
        target: Endpoint,
        opened: PacedTransport,
        http: HttpClient,
        quota: Quota,
        money: MoneyQuota | None,
        offers: Sequence[Offer],
    ) -> None:
        self._supplier = supplier
        self._target = target
        self._opened = opened
        self._http = http
        self._quota = quota
        self._money = money
        self._offers = offers

    async def result(self) -> ProbeResult:
        """What there is to tell."""
        key = self._supplier.key
        plug, api = transport(self._target.transport), self._supplier.api
        # of services that are discovered every relay is paid for, or a gateway's: one question has to do
        questions = _questions(api) if plug.rules is None else _questions(api)[:1]
        search = Search(questions, api, self._target.generation)
        try:
            attempt = await self._searched(search)
        except _Spent as spent:
            return ProbeResult(key, True, f"not asked: {spent}")
        if attempt.fault.row.kept_by_session:  # nothing is wrong with it, and nothing known
            return ProbeResult(key, True, f"not asked: {attempt.error}")
        listed = await self._models(attempt)
        if not search.found:
            tried = f"; {search.trials - 1} other forms were tried" if search.trials > 1 else ""
            return ProbeResult(key, False, _failure(self._supplier, attempt) + tried + listed)
        if search.wanted != self._target.generation:
            return self._refuses(search, attempt, listed)
        if reasons_only(attempt):
            return self._reasons(listed)
        detail = (
            f"{self._supplier.api} at {self._target.base_url} answers in {attempt.latency_ms:.0f} ms{listed}"
        )
        if self._supplier.api != "completions":
            return await self._offered(detail)
        try:
            echo = echo_verdict(await self._send(ECHO_REQUEST, self._target.generation))
        except _Spent as spent:
            return ProbeResult(key, True, f"{detail}, echo not asked: {spent}")
        known = {
            True: "echoes log-probabilities",
            False: f"does not {_ECHO}; {_NO_ECHO}",
            None: "echo unknown",
        }
        return ProbeResult(key, True, f"{detail}, {known[echo]}", echo)

    async def _offered(self, detail: str) -> ProbeResult:
        """Ask whether it takes what tasks offer beside their messages."""
        refused = []
        for offer in self._offers if transport(self._target.transport).rules is None else ():
            try:
                attempt = await self._answered(offer.request, self._target.generation)
            except _Spent as spent:
                detail += f", {offer.name} not asked: {spent}"
                break
            taken = is_taken(attempt)
            if taken is False:
                refused.append(offer)
                said = f" ({attempt.error})" if attempt.error else ""
                detail += f"; does not take {offer.name}{said}: {offer.remedy}"
            elif taken is None:
                detail += f", {offer.name} unknown"
            elif calls_none(offer, attempt):
                detail += ", takes tools but called none"
            else:
                detail += f", takes {offer.name}"
        return ProbeResult(self._supplier.key, not refused, detail, warning=bool(refused))

    async def _searched(self, search: Search) -> Attempt:
        """Ask until it is clear in which form it answers; the first answer, or the first one without."""
        first: Attempt | None = None
        answer: Attempt | None = None
        while (trial := search.next) is not None:
            request, generation = trial
            try:
                attempt = await self._answered(request, generation)
            except _Spent:
                if first is None:
                    raise
                break  # what is known by now is told
            first = first or attempt
            answered = attempt.fault.answered
            if answered and answer is None:
                answer = attempt
            search.tell(answered=answered, refused=refuses_form(attempt), body=attempt.body)
        found = answer if search.found else first
        if found is None:
            raise RuntimeError("a search began with no trial")
        return found

    async def _answered(self, request: Mapping[str, Any], generation: SupplierGeneration) -> Attempt:
        """Ask, and again where a server says no for the moment: an evaluation would ask it again, too."""
        attempt = await self._send(request, generation)
        if transport(self._target.transport).rules is not None:
            return attempt  # every relay is paid for
        for _ in range(_AGAIN):
            row = attempt.fault.row
            if row.pause is not Pause.LANE or not row.shown_by_answer or refuses_form(attempt):
                break
            await asyncio.sleep(min(attempt.retry_after_s or _WAIT_S, _LONGEST_WAIT_S))
            attempt = await self._send(request, generation)
        return attempt

    async def _send(self, request: Mapping[str, Any], generation: SupplierGeneration) -> Attempt:
        """Ask once, with other settings than are configured perhaps. Raises :class:`_Spent`."""
        target, quota = self._target, self._quota
        while (decision := quota.take(target)) is QuotaDecision.UNKNOWN:
            await asyncio.to_thread(quota.refill, target)
        if decision is QuotaDecision.REFUSED:
            raise _Spent("the budget is used up")
        if generation != target.generation:
            target = replace(target, generation=generation)
        relay = probe_relay(target, request)
        attempt = await send_paid(self._money, self._opened, target, relay)
        if attempt is None:
            quota.refund(target)
            raise _Spent("the budget of money does not reach to it")
        return attempt

    async def _models(self, attempt: Attempt) -> str:
        """What is wrong with the models it lists, where it can be asked for them."""
        from testbench_dagster.transports.models import served_models  # with aiohttp

        if not (transport(self._target.transport).lists_models(self._target) and attempt.fault.row.reached):
            return ""
        await self._opened.turn(self._target)
        return _listed(self._target.model, await served_models(self._http, self._target))

    def _refuses(self, search: Search, answer: Attempt, listed: str) -> ProbeResult:
        before, wanted = self._target.generation.settings(), search.wanted.settings()
        if reasons_only(answer):
            wanted["budget"] = self._more_tokens()
        changed = [name for name in wanted if wanted[name] != before.get(name)]
        changed += [name for name in before if name not in wanted]
        detail = (
            f"{self._target.base_url}: refuses how it is asked, and answers with other settings "
            f"({', '.join(changed)}); put under {self._where()}:{listed}"
        )
        return ProbeResult(self._supplier.key, False, detail, paste=_block(wanted))

    def _reasons(self, listed: str) -> ProbeResult:
        settings = self._target.generation.settings()
        settings["budget"] = self._more_tokens()
        detail = (
            f"{self._target.base_url}: answers, but reasons first, and our token limit ends that before the "
            f"answer begins; put a budget for it under {self._where()}:{listed}"
        )
        return ProbeResult(self._supplier.key, False, detail, warning=True, paste=_block(settings))

    def _more_tokens(self) -> int:
        """A budget for a model that reasoned until our token limit."""
        return max(REASONING_BUDGET, 2 * self._target.generation.budget)

    def _where(self) -> str:
        """Where in testbench.yaml its settings stand."""
        if self._supplier.source == CONFIG_SOURCE:
            return f"supplier {self._supplier.address} of suppliers (or its service)"
        listed = transport(self._supplier.transport).rules is None
        return f"services.{self._supplier.service}{' (with transport: direct)' if listed else ''}"


def _questions(api: Api) -> list[dict[str, Any]]:
    """A short question in two forms that tasks have: without stop strings, and with many."""
    prompt: dict[str, Any] = (
        {"messages": [{"role": "user", "content": _QUESTION}]} if api == "chat" else {"prompt": _QUESTION}
    )
    request = {"type": "generate_until", "idx": 0, **prompt}
    return [{**request, "generation": {**_GENERATION, "until": list(until)}} for until in ((), _STOPS)]


def _block(settings: Mapping[str, Any]) -> str:
    """Settings as one line of YAML, which fits wherever it is pasted."""
    text = yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=10**6).strip()
    return f"generation: {text}"


def _listed(wanted: str, models: list[str] | None) -> str:
    """Say so when the supplier lists models, but not the one it is asked for."""
    if not models or wanted in models:
        return ""
    more = f" and {len(models) - 5} more" if len(models) > 5 else ""
    return f"; it lists {', '.join(models[:5])}{more}, not {wanted!r}"


def _failure(supplier: Supplier, attempt: Attempt) -> str:
    status = f", HTTP {attempt.status}" if attempt.status else ""
    reason = f" ({attempt.error})" if attempt.error else ""
    return f"{supplier.base_url}: {attempt.fault.value}{status}{reason}; {remedy_of(attempt)}"
