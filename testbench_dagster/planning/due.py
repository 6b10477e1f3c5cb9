"""What is due for one supplier and task: a pure function of the sequence, the outcomes and the clock.

Rules:

* A *call* is one request of a prompt (``idx``) and repeat. What became of a prompt whose calls were not all
  answered at once says :mod:`testbench_dagster.core.doc_states`; planning is told.
* How many docs are wanted is the same for every supplier in an epoch
  (:func:`testbench_dagster.core.sampling.common_docs`): nothing that is answered in it has a say in that.
* A prompt that is *closed* (scored, failed or void) is not asked again in its round. It is *fresh* until
  ``max_age`` after its last call, in whatever round that was. Then its *slot* of the score falls due: half of
  the docs, drawn by the epoch's seed, are asked again, the other slots take the next docs of the sequence.
* A prompt that is *open* is asked again at its next occasion and not before, unless ``retry_now``; then
  before any new one, in the round and epoch in which it was asked, whatever is fresh; that with the fewest
  occasions first, so that all are asked of who answers nothing and is left after a few. It keeps its place:
  no other is asked in its stead meanwhile.
* New docs are asked in the order of the sequence; once all of it was asked, those again that were asked in
  the fewest rounds.
* A doc that an earlier epoch closed counts while it is fresh: a new sequence does not ask all anew.
* What was answered before a change of the supplier's model (``cut_at``), or before a forced renewal began
  (``force_since``), is void: such a doc is neither counted nor completed, but asked whole in another round.
* What is dated ahead of ``now``, by a clock that was set back since, is as old as can be: asked again.
* Docs that a sequential gate wants beyond the others are asked in round
:data:`~testbench_dagster.core.sampling.GATE_ROUND`: they are no slots
  of the score, which would else depend on when the gate had seen enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.doc_states import DocOutcome
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import GATE_ROUND, SampleRule, asks_again, common_docs, kept_docs
from testbench_dagster.core.wording import agreeing, are, counted


@dataclass(frozen=True, slots=True)
class PromptRef:
    """A prompt of the sequence: enough to plan with, without its requests."""

    id: str
    position: int
    doc_id: int
    requests: int
    repeats: int


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The last attempt of one call in a round."""

    prompt_id: str
    idx: int
    repeat: int
    attempt: int
    fault: Fault
    finished_at: datetime
    round: int = 1


Lives = Mapping[tuple[str, int], DocOutcome]
"""What became of the prompts, by id and round, that were not answered at once."""


@dataclass(frozen=True, slots=True)
class OpenElsewhere:
    """An open doc under a prompt that the present sequence has not: of an earlier epoch, as a rule."""

    prompt: PromptRef
    epoch: int
    round: int
    outcomes: tuple[CallOutcome, ...]
    life: DocOutcome


@dataclass(frozen=True, slots=True)
class ClosedElsewhere:
    """A doc that fell due under a prompt that the present sequence has not, and the last ``round`` of it."""

    prompt: PromptRef
    epoch: int
    round: int


@dataclass(frozen=True, slots=True)
class DueCall:
    """A call to make and the number its next attempt will have."""

    idx: int
    repeat: int
    attempt: int


@dataclass(frozen=True, slots=True)
class DuePrompt:
    """A prompt with the calls still to make, at its ``occasion``-th occasion of a round.

    ``epoch``: the one it belongs to; None for the present. ``open``: it was asked before in vain. ``anew``:
    it is not, and an earlier outcome of its doc counts until it closes. ``place``: where it stands among what
    is released of the sequence; None for its position.
    """

    prompt: PromptRef
    calls: tuple[DueCall, ...]
    round: int = 1
    occasion: int = 1
    epoch: int | None = None
    open: bool = False
    anew: bool = False
    place: int | None = None


@dataclass(frozen=True)
class TaskPlan:
    """What to relay now, in order; ``reason`` says why nothing is due, or what the calls are for.

    ``round`` is the latest that is asked, or was. ``target`` docs are wanted and ``fresh`` are there, over
    all epochs; besides ``open`` were asked in vain, with those that are due now. ``open_at`` is when the
    next occasions of the first of these have begun, ``aged_at`` when too few will be fresh by ageing alone,
    or now where new docs are due; None where there is no such instant. ``faults`` are the last ones of the
    open docs, our own left out; ``ours`` are open by these alone. Of ``kept`` open docs an earlier outcome
    counts until they close anew: of those that were asked again by force or with age.
    """

    round: int
    due: list[DuePrompt] = field(default_factory=list)
    reason: str = ""
    target: int = 0
    fresh: int = 0
    open: int = 0
    open_at: datetime | None = None
    aged_at: datetime | None = None
    faults: Mapping[Fault, int] = field(default_factory=dict)
    kept: int = 0
    ours: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When the first doc is due: the present if one is now, None when none will ever be."""
        return min((at for at in (self.open_at, self.aged_at) if at is not None), default=None)

    @property
    def n_calls(self) -> int:
        """Number of relays the plan needs, retries aside."""
        return sum(len(prompt.calls) for prompt in self.due)


_Calls = dict[tuple[int, int], CallOutcome]
_NO_LIVES: Lives = {}
_NO_CALLS: _Calls = {}


def plan_task(
    prompts: Sequence[PromptRef],
    outcomes: Iterable[CallOutcome],
    *,
    rule: SampleRule | None,
    variance: float | None = None,
    now: datetime,
    max_age: timedelta,
    lives: Lives = _NO_LIVES,
    open_elsewhere: Sequence[OpenElsewhere] = (),
    closed_elsewhere: Sequence[ClosedElsewhere] = (),
    cut_at: datetime | None = None,
    final_elsewhere: Mapping[int, datetime] | None = None,
    older: Collection[int] = (),
    draw: str = "",
    seed: str = "",
    grace: timedelta = timedelta(0),
    at_least: int = 0,
    at_most: int | None = None,
    undecided: bool = False,
    force_since: datetime | None = None,
    retry_now: bool = False,
    together: timedelta = timedelta(0),
) -> TaskPlan:
    """Decide which prompts a supplier is asked now.

    Args:
        prompts: the sequence, ascending by position, each doc once.
        outcomes: last attempts of this supplier on these prompts, of every round.
        rule: how many docs; None for all.
        variance: of the docs of the task, as the epoch's record has it.
        now: the present, timezone-aware.
        max_age: after which a closed prompt no longer counts, and an open one is begun anew.
        lives: what became of the prompts with calls that were not answered; where one is missing, nothing
            but what was never sent keeps the prompt open.
        open_elsewhere: open docs that the sequence has not.
        closed_elsewhere: docs that fell due and that the sequence has not, to be asked again there.
        cut_at: when the supplier's model changed; what finished at or before it is void.
        final_elsewhere: doc id → when it was last closed in an earlier epoch.
        older: ids of the docs that were last asked before the epoch that set the number of docs, by what
            they were answered; at most half of the slots stay theirs.
        draw: draws which of them that are, see :func:`testbench_dagster.core.sampling.kept_docs`.
        seed: of the epoch; it draws which docs are asked again.
        grace: how long after ``max_age`` a doc's slot stays its own.
        at_least: docs to ask even if fewer are wanted: those that are not fresh, then the others, longest
            final first.
        at_most: docs to ask at most besides those that are open: these were counted when they were begun.
        undecided: a sequential gate waits for this task: as many docs as the rule allows are wanted.
        force_since: ask again what finished before it: the docs of the sequence that count now, and at
            least as many as the rule wants. A later call with the same instant continues.
        retry_now: the next occasion of open docs begins now.
        together: how much later than the first open doc others may be due to be waited for: docs that failed
            within one run are asked again in one.
    """
    if not prompts:
        return TaskPlan(1, [], "the sequence has no prompts")
    aged = (
        now - max_age
    )  # of what is dated ahead nobody knows how old it is: it is asked again, keeping its slot
    if final_elsewhere is not None:
        final_elsewhere = {doc: aged if is_ahead(at, now) else at for doc, at in final_elsewhere.items()}
    open_elsewhere = [
        doc for doc in open_elsewhere if not any(is_ahead(call.finished_at, now) for call in doc.outcomes)
    ]
    outcomes = [
        replace(call, finished_at=aged) if is_ahead(call.finished_at, now) else call for call in outcomes
    ]
    asked = _by_round(prompts, outcomes, lives)
    of_gates = asked.pop(GATE_ROUND, {})
    last_round = {id_: round_ for round_, states in asked.items() for id_ in states}

    def after_cut(at: datetime) -> bool:
        return cut_at is None or at > cut_at

    def valid(at: datetime) -> bool:
        return after_cut(at) and (force_since is None or at >= force_since)

    def young(at: datetime) -> bool:
        return valid(at) and at > now - max_age

    final = _final(prompts, asked, final_elsewhere or {}, valid)
    wanted = common_docs(rule, len(prompts), variance)
    renewed: set[int] = set()  # by force; they come first, so that as many count as did
    closed = final
    if force_since is not None:
        closed = _final(prompts, asked, final_elsewhere or {}, after_cut)
    opened = _open(prompts, asked, open_elsewhere, young)
    left = set[int]()
    if older:
        there = {doc for doc, at in closed.items() if at > now - max_age - grace} | opened.keys()
        if force_since is not None:
            # one that force does not count, and that the sequence cannot renew, would hold its slot for good
            there &= {prompt.doc_id for prompt in prompts} | final.keys() | opened.keys()
        left = _left(prompts, asked, opened, there, older, wanted, draw)
    if force_since is not None:
        lasting = {doc for doc, at in closed.items() if at > now - max_age and doc not in left}
        renewed = lasting & {prompt.doc_id for prompt in prompts}
        wanted = max(wanted, len(renewed))
    fresh = {doc: at for doc, at in final.items() if at > now - max_age and doc not in left}
    unasked = {doc for doc in left if doc in closed and closed[doc] > now - max_age}
    opened_of_gates = _open(prompts, {GATE_ROUND: of_gates}, (), young)
    begun = [*opened.values(), *opened_of_gates.values()]
    again = sorted((doc for doc in begun if retry_now or doc.next_at(now) <= now), key=_OpenDoc.occasion)
    resting = [doc.next_at(now) for doc in begun if not retry_now and doc.next_at(now) > now]

    held = fresh.keys() | opened.keys()
    missing = max(0, wanted - len(held - left))
    pool = _next_docs(prompts, last_round, held | unasked, renewed)
    repeats = _repeats(final, now - max_age - grace, held | left, closed_elsewhere, prompts, last_round, seed)
    repeats = repeats[:missing]
    repeated = {doc.prompt.doc_id for doc in repeats}
    others = [doc for doc in pool if doc.prompt.doc_id not in repeated]
    chosen = [*repeats, *others[: missing - len(repeats)]]
    least = max(0, min(at_least - len(again), len(prompts) - len(opened)))
    if len(chosen) < least:
        oldest = [prompt for prompt in prompts if prompt.doc_id in fresh and prompt.doc_id not in opened]
        oldest.sort(key=lambda prompt: (fresh[prompt.doc_id], prompt.position))
        spare = others[missing - len(repeats) :] + [_anew(prompt, last_round) for prompt in oldest]
        chosen += spare[: least - len(chosen)]

    target, n_fresh = wanted, len(fresh)
    if undecided and rule is not None:
        target = max(wanted, min(rule.max, len(prompts)))
        gated = _final(prompts, {GATE_ROUND: of_gates}, {}, young)
        n_fresh += len(gated)
        taken = {doc.prompt.doc_id for doc in chosen} | held
        more = max(0, target - len(taken) - len(gated.keys() | opened_of_gates.keys()))
        spare_prompts = [p for p in prompts if p.id not in of_gates and p.doc_id not in taken]
        chosen += [DuePrompt(p, _calls(p, _NO_CALLS), GATE_ROUND) for p in spare_prompts[:more]]
    chosen = chosen[:at_most]
    kept = {doc for doc, at in closed.items() if at > now - max_age - grace}
    if any(doc.prompt.doc_id in kept for doc in chosen):
        chosen = [replace(doc, anew=True) if doc.prompt.doc_id in kept else doc for doc in chosen]
    due = [doc.due() for doc in again] + chosen
    round_ = max([1, *(doc.round for doc in chosen), *asked])

    verb = are(1 if target == 1 else n_fresh)
    if n_fresh >= target:
        reason = (
            "the one wanted doc is fresh" if target == 1 else f"all {counted(target, 'wanted doc')} are fresh"
        )
        reason += f"; {len(chosen)} {are(len(chosen))} renewed" if chosen else ""
    elif force_since is not None:
        reason = f"{n_fresh} of {counted(target, 'doc')} {verb} renewed by force"
    else:
        reason = f"{n_fresh} of {counted(target, 'doc')} {verb} fresh"
    if again:
        reason += f"; {counted(len(again), 'open one')} {are(len(again))} asked again"
    if resting:
        reason += f"; {len(resting)} open, asked again {min(resting):%Y-%m-%d %H:%M}"
    open_at = now if again else max((at for at in resting if at <= min(resting) + together), default=None)
    ages = sorted(at for doc, at in fresh.items() if doc not in opened)
    others_wanted = wanted - len(opened.keys() - left)
    aged_at = now if chosen else None
    if not chosen and not missing and 0 < others_wanted <= len(ages):
        aged_at = ages[len(ages) - others_wanted] + max_age
    faults = Counter(doc.life.fault for doc in begun if doc.life is not None and doc.life.fault)
    n_kept = len(opened.keys() & kept)
    n_ours = sum(doc.life is not None and doc.life.ours for doc in begun)
    return TaskPlan(
        round_, due, reason, target, n_fresh, len(begun), open_at, aged_at, faults, n_kept, n_ours
    )


def _left(
    prompts: Sequence[PromptRef],
    asked: _Asked,
    opened: Mapping[int, _OpenDoc],
    there: Collection[int],
    older: Collection[int],
    wanted: int,
    draw: str,
) -> set[int]:
    """The older docs whose slots others take: all but half of those wanted, or but what no others are for."""
    here = {id_ for states in asked.values() for id_, state in states.items() if state.closed}
    anew = {prompt.doc_id for prompt in prompts if prompt.id in here}
    anew.update(doc for doc, state in opened.items() if state.epoch is None)
    before = {doc for doc in there if doc in older and doc not in anew}
    others = {doc for doc in there if doc not in before}
    others.update(prompt.doc_id for prompt in prompts if prompt.doc_id not in before)
    return before - kept_docs(draw, before, max(wanted // 2, wanted - len(others)))


def _anew(prompt: PromptRef, last_round: Mapping[str, int]) -> DuePrompt:
    """A prompt asked whole, in the round after the last that asked it."""
    return DuePrompt(prompt, _calls(prompt, _NO_CALLS), last_round.get(prompt.id, 0) + 1)


def _next_docs(
    prompts: Sequence[PromptRef],
    last_round: Mapping[str, int],
    held: Collection[int],
    renewed: Collection[int],
) -> list[DuePrompt]:
    """The docs that neither count nor are open, as they are asked next: the same order for everybody."""
    free = [_anew(prompt, last_round) for prompt in prompts if prompt.doc_id not in held]
    return sorted(free, key=lambda doc: (doc.prompt.doc_id not in renewed, doc.round, doc.prompt.position))


def _repeats(
    final: Mapping[int, datetime],
    since: datetime,
    held: Collection[int],
    elsewhere: Sequence[ClosedElsewhere],
    prompts: Sequence[PromptRef],
    last_round: Mapping[str, int],
    seed: str,
) -> list[DuePrompt]:
    """The docs whose slots fell due after an instant and ask them again, by position."""
    due = {doc for doc, at in final.items() if at > since and doc not in held and asks_again(seed, doc)}
    if not due:
        return []
    found = {p.doc_id: _anew(p, last_round) for p in prompts if p.doc_id in due}
    for doc in elsewhere:
        if doc.prompt.doc_id in due and doc.prompt.doc_id not in found:
            calls = _calls(doc.prompt, _NO_CALLS)
            found[doc.prompt.doc_id] = DuePrompt(doc.prompt, calls, doc.round + 1, epoch=doc.epoch)
    return sorted(found.values(), key=lambda doc: (doc.prompt.position, doc.prompt.doc_id))


def _begun(docs: int) -> str:
    return f"{agreeing(docs, 'doc that was begun is', 'docs that were begun are')} finished"


def begun_docs(plan: TaskPlan) -> TaskPlan:
    """Of a plan only the docs that were asked before."""
    due = [doc for doc in plan.due if doc.open]
    return replace(plan, due=due, reason=_begun(len(due)), aged_at=None)


def _by_round(prompts: Sequence[PromptRef], outcomes: Iterable[CallOutcome], lives: Lives) -> _Asked:
    """What became of each prompt, by round and id."""
    by_id = {prompt.id: prompt for prompt in prompts}
    made: dict[int, dict[str, _Calls]] = {}
    for outcome in outcomes:
        if outcome.prompt_id not in by_id:
            continue  # of the other request form, or beyond a shortened sequence
        calls = made.setdefault(outcome.round, {}).setdefault(outcome.prompt_id, {})
        known = calls.get((outcome.idx, outcome.repeat))
        if known is None or known.attempt < outcome.attempt:
            calls[(outcome.idx, outcome.repeat)] = outcome
    return {
        round_: {
            id_: _AskedPrompt.of(by_id[id_], calls, lives.get((id_, round_))) for id_, calls in states.items()
        }
        for round_, states in sorted(made.items())
    }


@dataclass(frozen=True, slots=True)
class _AskedPrompt:
    """A prompt that was asked in a round: its last attempts, the first and the last of which ended when."""

    calls: _Calls
    life: DocOutcome | None
    closed: bool
    first_at: datetime
    last_at: datetime

    @classmethod
    def of(cls, prompt: PromptRef, calls: _Calls, life: DocOutcome | None) -> _AskedPrompt:
        if len(calls) == 1:  # as most have: what follows would come to the same
            (call,) = calls.values()
            at = call.finished_at
            whole = prompt.requests * prompt.repeats == 1 and call.fault.answered
            return cls(calls, life, whole if life is None else life.closed, at, at)
        if life is not None:
            closed = life.closed
        else:
            whole = len(calls) == prompt.requests * prompt.repeats
            closed = whole and all(call.fault.answered for call in calls.values())
        times = [call.finished_at for call in calls.values()]
        return cls(calls, life, closed, min(times), max(times))


_Asked = dict[int, dict[str, _AskedPrompt]]
"""What was asked, by round and prompt id, the rounds ascending."""


@dataclass(frozen=True, slots=True)
class _OpenDoc:
    """A doc that was begun and is not closed."""

    prompt: PromptRef
    round: int
    calls: _Calls
    life: DocOutcome | None
    epoch: int | None = None

    def next_at(self, now: datetime) -> datetime:
        """When it is asked again: at once where nothing but our own end, or a wrong date, keeps it open."""
        if self.life is None or self.life.next_at is None or is_ahead(self.life.at, now):
            return now
        return self.life.next_at

    def occasion(self) -> int:
        """Number of the occasion at which it is asked next."""
        return 1 if self.life is None else self.life.next_occasion

    def due(self) -> DuePrompt:
        calls = _calls(self.prompt, self.calls)
        return DuePrompt(self.prompt, calls, self.round, self.occasion(), self.epoch, True)


def _open(
    prompts: Sequence[PromptRef],
    asked: _Asked,
    elsewhere: Sequence[OpenElsewhere],
    counts: Callable[[datetime], bool],
) -> dict[int, _OpenDoc]:
    """The open docs by id, in the order in which they are asked: each in the last round that asked it."""
    last: dict[str, tuple[int, _AskedPrompt]] = {}
    for round_, states in asked.items():
        for id_, state in states.items():
            last[id_] = round_, state
    found = {
        prompt.doc_id: _OpenDoc(prompt, of_it[0], of_it[1].calls, of_it[1].life)
        for prompt in prompts
        if (of_it := last.get(prompt.id)) and not of_it[1].closed and counts(of_it[1].first_at)
    }
    if elsewhere:
        # what was begun anew in the present sequence is decided there
        touched = {prompt.doc_id for prompt in prompts if prompt.id in last}
        for doc in elsewhere:
            first_at = min(call.finished_at for call in doc.outcomes)
            if doc.prompt.doc_id not in touched and counts(first_at):
                calls = {(call.idx, call.repeat): call for call in doc.outcomes}
                found[doc.prompt.doc_id] = _OpenDoc(doc.prompt, doc.round, calls, doc.life, doc.epoch)
    return found


def _final(
    prompts: Sequence[PromptRef],
    asked: _Asked,
    elsewhere: Mapping[int, datetime],
    counts: Callable[[datetime], bool],
) -> dict[int, datetime]:
    """When each doc was last closed with all its calls in time, in whatever round or epoch."""
    found = {doc_id: at for doc_id, at in elsewhere.items() if counts(at)}
    docs = {prompt.id: prompt.doc_id for prompt in prompts}
    for states in asked.values():
        for id_, state in states.items():
            if state.closed and counts(state.first_at):
                doc_id = docs[id_]
                known = found.get(doc_id)
                found[doc_id] = state.last_at if known is None else max(state.last_at, known)
    return found


def _calls(prompt: PromptRef, calls: Mapping[tuple[int, int], CallOutcome]) -> tuple[DueCall, ...]:
    wanted = []
    for idx in range(prompt.requests):
        for repeat in range(prompt.repeats):
            known = calls.get((idx, repeat))
            if known is None or not known.fault.answered:
                wanted.append(DueCall(idx, repeat, 1 if known is None else known.attempt + 1))
    return tuple(wanted)
