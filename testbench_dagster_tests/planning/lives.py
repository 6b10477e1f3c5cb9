"""What became of docs that were not answered at once, for tests of what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocOutcome, DocState, Occasion
from testbench_dagster.core.faults import Fault
from testbench_dagster.planning.due import CallOutcome, PromptRef

HOUR = timedelta(hours=1)


def life(
    state: DocState,
    at: datetime,
    next_at: datetime | None = None,
    *,
    fault: Fault = Fault.SUPPLIER_HTTP,
    occasions: int = 1,
) -> DocOutcome:
    """A doc that stayed unanswered in so many occasions, the last of them at an instant."""
    told = tuple(Occasion(at, at, fault, True, run) for run in range(occasions))
    return DocOutcome(state, at, fault, told, next_at=next_at if state is DocState.OPEN else None)


def ours(at: datetime) -> DocOutcome:
    """A doc that only our own faults hold up."""
    return DocOutcome(DocState.OPEN, at, ours=True, next_at=at)


def unanswered(
    prompts: Sequence[PromptRef], outcomes: Iterable[CallOutcome]
) -> dict[tuple[str, int], datetime]:
    """The prompts by id and round that have a call without an answer, and when their last one ended."""
    last: dict[tuple[str, int, int, int], CallOutcome] = {}
    for outcome in outcomes:
        key = (outcome.prompt_id, outcome.round, outcome.idx, outcome.repeat)
        if key not in last or last[key].attempt < outcome.attempt:
            last[key] = outcome
    ids = {prompt.id for prompt in prompts}
    found: dict[tuple[str, int], datetime] = {}
    for outcome in last.values():
        key2 = (outcome.prompt_id, outcome.round)
        if outcome.prompt_id in ids and not outcome.fault.answered:
            found[key2] = max(outcome.finished_at, found.get(key2, outcome.finished_at))
    return found


def open_ones(
    prompts: Sequence[PromptRef], outcomes: Iterable[CallOutcome], next_at: datetime
) -> dict[tuple[str, int], DocOutcome]:
    """All that is unanswered is open until an instant."""
    return {key: life(DocState.OPEN, at, next_at) for key, at in unanswered(prompts, outcomes).items()}


@st.composite
def drawn_lives(
    draw: st.DrawFn, prompts: Sequence[PromptRef], outcomes: Sequence[CallOutcome], now: datetime
) -> dict[tuple[str, int], DocOutcome]:
    """Whatever may have become of what is unanswered."""
    found = {}
    for key, at in sorted(unanswered(prompts, outcomes).items()):
        state = draw(st.sampled_from([DocState.OPEN, DocState.OPEN, DocState.FAILED, DocState.VOID]))
        if state is DocState.OPEN and draw(st.booleans()):
            found[key] = ours(at)
        else:
            next_at = now + draw(st.integers(-30, 30)) * HOUR
            found[key] = life(state, at, next_at, occasions=draw(st.integers(1, 8)))
    return found
