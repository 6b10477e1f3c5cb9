"""What became of the docs that a supplier left unanswered, as planning sees them: open, or closed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial

from testbench_dagster.core.doc_states import DocClock, DocOutcome, reopened
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.attempts import DocRound, History
from testbench_dagster.stages.score.states import AnswersRead, Supplied, answered_tasks, refused_tasks
from testbench_dagster.stages.workspace import Workspace


def lives_of(
    workspace: Workspace,
    supplier: Supplier,
    pasts: Mapping[str, History],
    now: datetime,
    calls: Callable[[Collection[str]], Mapping[str, int]],
) -> dict[DocRound, DocOutcome]:
    """The outcomes of all docs with a call without an answer, by prompt id and round.

    ``pasts`` are by task; ``calls`` says how many calls prompts take, by id.

    Reads nothing where there is none. Whether a refused doc is void does not matter here: it is closed for
    the round either way. Not so where the supplier refuses the form of request everywhere: then it is open.
    """
    unanswered = {key: made for past in pasts.values() for key, made in past.unanswered.items()}
    if not unanswered:
        return {}
    read = AnswersRead(
        {(task, past.task_hash) for task, past in pasts.items()},
        max(past.since for past in pasts.values()),
        [answer for past in pasts.values() for answer in past.answered],
    )
    of_prompts = calls({prompt for prompt, _ in unanswered})
    known = Supplied(workspace, supplier, now, read).known(unanswered, of_prompts)
    lives = {key: doc.outcome for key, doc in known.items()}
    refused = {
        task: docs
        for task, past in pasts.items()
        if not any(call.fault.answered for call in past.outcomes)
        and (docs := [key for key in past.unanswered if lives[key].closed and lives[key].refused])
    }
    if refused:
        clock = DocClock.from_minutes(workspace.config.settings.planning.occasions_minutes)
        prompts = {(task, ""): {prompt for prompt, _ in docs} for task, docs in refused.items()}
        answered = partial(answered_tasks, workspace, supplier, now)
        for task in refused_tasks(workspace.documents, supplier, prompts, answered):
            lives |= {key: reopened(lives[key], clock) for key in refused[task]}
    return lives
