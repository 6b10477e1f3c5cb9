"""What ``testbench check`` finds of who is asked what, with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import testbench_dagster
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.preconditions import require_something_to_ask, why_nothing_is_scored
from testbench_dagster.stages.who_is_asked import asked_findings
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TEXT, CHOICE = "starter_logic", "starter_choice"


def flags(output_type: str) -> TaskFlags:
    return TaskFlags(
        output_type=output_type,
        features=[],
        multiple_input=False,
        multiple_target=False,
        repeats=1,
        num_fewshot=0,
        version="1",
        metrics={},
        filters=["none"],
    )


KINDS = {TEXT: flags("generate_until"), CHOICE: flags("loglikelihood")}


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Workspace]]:
    """Opens an installation with a chat supplier (alpha) and one of completions (beta)."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    made: list[Workspace] = []

    def build(*tasks: dict[str, Any], **settings: Any) -> Workspace:
        made.append(Workspace(configuration(tmp_path, {"tasks": list(tasks), **settings})))
        return made[-1]

    yield build
    for workspace in made:
        workspace.close()


def found(
    workspace: Workspace,
    kinds: dict[str, TaskFlags] = KINDS,
    echo: dict[str, bool | None] | None = None,
    suppliers: list[Supplier] | None = None,
) -> dict[str, Finding]:
    chosen = active_suppliers(workspace) if suppliers is None else suppliers
    told = list(asked_findings(workspace, chosen, kinds, echo or {}))
    assert len({one.what for one in told}) == len(told)
    return {one.what: one for one in told}


def test_nothing_is_told_where_everybody_can_answer_what_it_is_asked(
    opened: Callable[..., Workspace],
) -> None:
    assert found(opened({"name": TEXT})) == {}
    assert found(opened({"name": TEXT}, {"name": CHOICE, "suppliers": ["beta@*"]}), echo={BETA: True}) == {}
    assert found(opened({"name": TEXT}, {"name": CHOICE, "suppliers": ["beta@*"]}), echo={BETA: None}) == {}
    assert found(opened({"name": CHOICE}), kinds={}) == {}, "it cannot be prepared: that is told already"


def test_a_task_that_no_supplier_can_answer_is_told_with_what_to_do(opened: Callable[..., Workspace]) -> None:
    workspace = opened({"name": TEXT}, {"name": CHOICE})
    one = found(workspace, echo={BETA: False})[f"task {CHOICE}"]
    assert one.warning and not one.failed, "the other task works"
    assert one.detail == (
        "no supplier that is asked it can answer it: its requests (loglikelihood) want log-probabilities of "
        f"given texts, which no chat API gives ({ALPHA}) and {BETA} does not echo; take a task that "
        "generates its answers (generate_until), add a supplier with api: completions that echoes "
        "log-probabilities, or remove it"
    )
    some = found(workspace, echo={BETA: True})[f"task {CHOICE}"]
    assert some.ok and some.detail.startswith("1 of 2 suppliers cannot answer it: ")
    assert some.detail.endswith(f"which no chat API gives ({ALPHA}); their rows say unsupported")
    rolling = found(workspace, kinds={**KINDS, CHOICE: flags("loglikelihood_rolling")}, echo={BETA: True})
    assert rolling[f"task {CHOICE}"].ok, "whole texts are asked where log-probabilities are echoed"
    rolling = found(workspace, kinds={**KINDS, CHOICE: flags("loglikelihood_rolling")}, echo={BETA: False})
    assert "which no chat API gives" in rolling[f"task {CHOICE}"].detail


def test_letters_are_for_chats_alone(opened: Callable[..., Workspace]) -> None:
    """Who completes texts and does not echo is asked a choice in neither form, and is told so."""
    letters = replace(flags("generate_until"), forms=["chat"])
    kinds = {CHOICE: flags("multiple_choice"), f"{CHOICE}~chat": letters}
    workspace = opened({"name": CHOICE}, choices_on_chat=True)
    told = found(workspace, kinds, echo={BETA: False})
    assert f"which no chat API gives ({ALPHA}) and {BETA} does not echo; by letters (~chat) it is asked " in (
        told[f"task {CHOICE}"].detail
    )
    assert told[f"supplier {BETA}"].detail.startswith("can answer no task that it is asked; ")
    beta = [s for s in active_suppliers(workspace) if s.key == BETA]
    alone = found(workspace, kinds, echo={BETA: False}, suppliers=beta)[f"task {CHOICE}~chat"]
    assert alone.detail == (
        f"is asked of no supplier (of {BETA}, choices_on_chat is for chat, and the API of {BETA} is "
        "completions); set api: chat for a supplier that serves it, or remove choices_on_chat"
    )
    own = opened({"name": CHOICE, "mode": "chat_choice"})
    told = found(own, {f"{CHOICE}~chat": letters})
    assert told[f"task {CHOICE}~chat"].detail == (
        f"1 of 2 suppliers cannot answer it: it is asked as a chat, and the API of {BETA} is another; their "
        "rows say unsupported"
    )


def test_where_nothing_can_be_answered_it_is_a_problem(opened: Callable[..., Workspace]) -> None:
    workspace = opened({"name": CHOICE})
    told = found(workspace, echo={BETA: False})
    assert [(what, one.failed) for what, one in told.items()] == [(f"task {CHOICE}", True)]


def test_what_the_roster_knows_counts_where_nothing_was_just_found_out(
    opened: Callable[..., Workspace],
) -> None:
    workspace = opened({"name": TEXT}, {"name": CHOICE, "suppliers": ["beta@*"]})
    Facts(workspace).echo(BETA, False)
    assert found(workspace)[f"task {CHOICE}"].warning
    assert found(workspace, echo={BETA: True}) == {}, "it does now"
    Facts(workspace).echo(BETA, True)
    assert found(workspace) == {}


def test_who_is_asked_nothing_and_what_is_asked_of_nobody_is_told(opened: Callable[..., Workspace]) -> None:
    workspace = opened(
        {"name": TEXT, "suppliers": ["beta@*"]},
        {"name": CHOICE, "services": ["external"], "suppliers": ["!alpha@*", "!beta@*"]},
    )
    told = found(workspace)
    assert {what: one.warning for what, one in told.items()} == {
        f"task {CHOICE}": True,
        f"supplier {ALPHA}": True,
    }
    assert told[f"task {CHOICE}"].detail == (
        f"is asked of no supplier (of {ALPHA}, the task's suppliers leave {ALPHA} out); correct "
        "tasks[].services, tasks[].suppliers or suppliers[].tasks, or remove it"
    )
    assert told[f"supplier {ALPHA}"].detail.startswith(f"is asked no task (of {TEXT}, ")


def test_who_can_answer_nothing_that_it_is_asked_is_told(opened: Callable[..., Workspace]) -> None:
    workspace = opened({"name": TEXT, "suppliers": ["beta@*"]}, {"name": CHOICE})
    told = found(workspace, echo={BETA: True})
    assert told[f"supplier {ALPHA}"].detail.startswith("can answer no task that it is asked; ")
    assert set(told) == {f"supplier {ALPHA}", f"task {CHOICE}"}


def test_patterns_that_match_nobody_whom_sources_list_are_told(opened: Callable[..., Workspace]) -> None:
    workspace = opened(
        {"name": TEXT, "services": ["*", "!code"], "suppliers": ["*", "!gone@*"]},
        supplier_sources=[{"file": "roster.json"}],
    )
    told = found(workspace)
    assert {what: one.detail for what, one in told.items()} == {
        "tasks[0].services": "'!code' matches none of the services on the roster; there are: external; "
        "correct it, or remove it",
        "tasks[0].suppliers": "'!gone@*' matches none of the suppliers on the roster; there are: "
        f"{ALPHA}, {BETA}; correct it, or remove it",
    }
    gone = replace(active_suppliers(workspace)[0], address="gone", service="code")
    assert found(workspace, suppliers=[gone]).keys() == {f"task {TEXT}", f"supplier {gone.key}"}
    assert found(workspace, suppliers=[]) == {}, "that there is none is told already"


def test_nothing_to_ask_is_refused_before_anything_is_sent(opened: Callable[..., Workspace]) -> None:
    workspace = opened({"name": TEXT, "suppliers": ["beta@*"]}, {"name": CHOICE})
    alpha, beta = active_suppliers(workspace)
    text, choice = workspace.specs
    assert require_something_to_ask(workspace, [alpha, beta], [text]) == [beta]
    assert require_something_to_ask(workspace, [alpha, beta], [text, choice]) == [alpha, beta]
    with pytest.raises(ConfigError) as error:
        require_something_to_ask(workspace, [alpha], [text])
    assert str(error.value) == (
        f"{workspace.config.path}: nothing is asked: {TEXT} not of {ALPHA} (the task's suppliers leave "
        f"{ALPHA} out); choose others, or correct tasks[].services, tasks[].suppliers or suppliers[].tasks"
    )


def test_a_score_of_what_is_not_asked_any_more_is_no_score(opened: Callable[..., Workspace]) -> None:
    workspace = opened({"name": TEXT, "suppliers": ["beta@*"]}, {"name": CHOICE})
    facts = Facts(workspace)
    registration = facts.registration(TEXT, n_docs=4)
    facts.score(registration, 0, supplier=ALPHA)
    assert why_nothing_is_scored(workspace) == "nothing was scored"
    assert why_nothing_is_scored(workspace, [ALPHA]) == "nothing was scored"
    facts.score(registration, 1, supplier=BETA)
    assert why_nothing_is_scored(workspace) is None
    assert why_nothing_is_scored(workspace, [ALPHA]) == "nothing was scored"
    assert why_nothing_is_scored(workspace, [BETA], [CHOICE]) == "nothing was scored"


def test_the_example_of_the_reference_asks_whom_it_says(tmp_path: Path) -> None:
    page = Path(testbench_dagster.__file__).parents[1] / "docs" / "reference.md"
    section = page.read_text(encoding="utf-8").partition("\n## Who is asked what\n")[2].partition("\n## ")[0]
    path = tmp_path / "testbench.yaml"
    path.write_text(section.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        asked = {
            spec.name: [s.address for s in active_suppliers(workspace) if spec.asked_of(s)]
            for spec in workspace.specs
        }
    assert asked == {
        "gsm8k": ["alice", "bob", "carol"],
        "humaneval_instruct": ["carol"],
        "ifeval": ["alice"],
    }


def test_a_task_that_is_a_chat_needs_a_chat(opened: Callable[..., Workspace]) -> None:
    workspace = opened({"name": TEXT})
    (told,) = [one for one in found(workspace, kinds={TEXT: flags("chat")}).values() if "task" in one.what]
    assert told.ok and BETA in told.detail and "asked as a chat" in told.detail
    beta = [s for s in active_suppliers(workspace) if s.key == BETA]
    told = found(workspace, kinds={TEXT: flags("chat")}, suppliers=beta)[f"task {TEXT}"]
    assert not told.ok and "set api: chat" in told.detail
