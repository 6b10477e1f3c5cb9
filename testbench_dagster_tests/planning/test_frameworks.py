"""The importer against the configuration pocket-ml-testbench ships, and against what may go wrong in one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.config import Settings
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.rules import PlanningRule, PlanningSettings, TaskGate, TaxonomyGate
from testbench_dagster.planning.frameworks import import_frameworks

NO_GATE = "none:none:none:none"


def framework(**fields: Any) -> dict[str, Any]:
    """A framework whose fields say nothing but what is given."""
    silent = {
        "task_types": {"any": "numerical"},
        "task_dependency": {"any": [NO_GATE]},
        "schedule_limits": {"any": "none:none"},
        "trigger_minimum": {"any": "0"},
        "taxonomy_dependency": {"any": [NO_GATE]},
    }
    return {**silent, **fields}


#: The rules of the original's sample configuration, in its own grammar.
SHIPPED = {
    "lmeh-generative-liveness": framework(
        task_dependency={"any": ["signatures:identity:equal:UNIQUE_OR_PROXY"]}
    ),
    "lmeh-generative": framework(
        task_dependency={"any": ["signatures:identity:equal:UNIQUE_OR_PROXY"]},
        taxonomy_dependency={"any": ["liveness_v0:0.8:0.8:10"]},
    ),
    "lmeh-generative-external": framework(),
    "lmeh": framework(task_dependency={"any": ["signatures:tokenizer:ok:ok", "signatures:config:ok:ok"]}),
    "signatures": framework(
        task_types={"any": "signature"},
        schedule_limits={"any": "1:session", "identity": "24:hours"},
        trigger_minimum={"any": "0", "tokenizer": "1", "config": "1", "identity": "1"},
    ),
}


def imported(
    frameworks: dict[str, Any], name: str | list[str] | None = None, **options: Any
) -> tuple[PlanningSettings, dict[str, PlanningRule], tuple[str, ...]]:
    """What our own configuration reads in the YAML: defaults, rules by task; and the notes."""
    result = import_frameworks(frameworks, name, **options)
    document = yaml.safe_load(result.text)
    entries = document.get("tasks", [])
    # the whole configuration accepts it: the fragment, and a source that tells heights
    settings = Settings.model_validate(
        {
            **document,
            "tasks": [*entries, {"name": "another"}],
            "supplier_sources": [{"file": "roster.json"}],
        }
    )
    return settings.planning, {t.name: t.planning for t in settings.tasks[:-1]}, result.notes


def test_the_shipped_frameworks() -> None:
    planning, tasks, notes = imported(SHIPPED, "lmeh-generative-liveness")
    assert (planning, tasks) == (PlanningSettings(), {})
    assert len(notes) == 1
    assert "UNIQUE_OR_PROXY" in notes[0]
    assert "identity groups" in notes[0]

    planning, tasks, notes = imported(SHIPPED, "lmeh-generative")
    (gate,) = planning.gates
    assert gate == TaxonomyGate(taxonomy="liveness_v0", min_score=0.8, min_success=0.8, min_samples=10)
    assert any("list it under taxonomies" in note for note in notes)

    assert imported(SHIPPED, "lmeh-generative-external") == (PlanningSettings(), {}, ())

    planning, _, notes = imported(SHIPPED, "lmeh")
    assert planning.gates == tuple(
        TaskGate.model_validate({"task": t, "is": "ok"}) for t in ("tokenizer", "config")
    )
    assert any("task tokenizer: it must be configured" in note for note in notes)

    planning, tasks, notes = imported(SHIPPED, "signatures", blocks_per_session=12)
    assert planning.schedule is not None
    assert (planning.schedule.every, planning.schedule.unit, planning.blocks_per_session) == (
        1,
        "session",
        12,
    )
    assert {name: rule.trigger_minimum for name, rule in tasks.items()} == dict.fromkeys(
        ("config", "identity", "tokenizer"), 1
    )
    identity = tasks["identity"].over(planning)
    assert identity.schedule is not None
    assert (identity.schedule.every, identity.schedule.unit) == (24, "hours")
    assert tasks["config"].over(planning).schedule == planning.schedule
    assert any("a height" in note for note in notes)
    assert any("task_types.any: signature is dropped" in note for note in notes)


def test_a_named_task_says_what_it_does_not_share() -> None:
    """Also that it has none; and what it says of one kind of gate leaves the other kind as it is."""
    rules = framework(
        schedule_limits={"any": "24:hours", "gsm8k": "none:none", "ifeval": "24:hours"},
        trigger_minimum={"any": "1", "gsm8k": "0"},
        task_dependency={"any": ["lmeh:arc:present:x"], "gsm8k": NO_GATE, "mmlu": ["lmeh:arc:ok:ok"]},
        taxonomy_dependency={"any": ["live:0.5:0:3"], "ifeval": [NO_GATE]},
    )
    planning, tasks, _ = imported({"lmeh": rules})
    arc = TaskGate.model_validate({"task": "arc", "is": "present"})
    live = TaxonomyGate(taxonomy="live", min_score=0.5, min_samples=3)
    assert planning.gates == (arc, live)
    gsm8k = tasks["gsm8k"].over(planning)
    assert (gsm8k.schedule, gsm8k.trigger_minimum, gsm8k.gates) == (None, 0, (live,))
    ifeval = tasks["ifeval"].over(planning)
    assert (ifeval.schedule, ifeval.trigger_minimum, ifeval.gates) == (planning.schedule, 1, (arc,))
    assert tasks["ifeval"].model_fields_set == {"gates"}, "only what differs is written"
    ok = TaskGate.model_validate({"task": "arc", "is": "ok"})
    assert tasks["mmlu"].over(planning).gates == (ok, live)


def test_a_trigger_minimum_without_a_schedule_gets_the_managers_period() -> None:
    planning, tasks, notes = imported({"lmeh": framework(trigger_minimum={"any": "0", "gsm8k": "2"})})
    schedule = tasks["gsm8k"].schedule
    assert planning.schedule is None
    assert schedule is not None
    assert (schedule.every, schedule.unit, tasks["gsm8k"].trigger_minimum) == (5, "minutes", 2)
    assert any(note.startswith("lmeh.trigger_minimum.gsm8k: without a schedule") for note in notes)


def test_equality_follows_the_type_of_the_other_task() -> None:
    frameworks = {
        "lmeh": framework(task_dependency={"any": ["lmeh:arc:equal:1", "signatures:config:equal:12"]}),
        "signatures": SHIPPED["signatures"],
    }
    planning, _, notes = imported(frameworks, "lmeh")
    assert [gate.value for gate in planning.gates if isinstance(gate, TaskGate)] == [1.0, "12"]
    assert any("was never true for numbers" in note for note in notes)


def test_only_a_gate_on_nothing_is_none() -> None:
    """A task may be called none."""
    rules = framework(task_dependency={"any": ["none:none:none:none", "lmeh:none:present:x"]})
    assert imported({"lmeh": rules})[0].gates == (TaskGate.model_validate({"task": "none", "is": "present"}),)


def test_what_has_no_counterpart_is_told() -> None:
    rules = framework(owner="me", schedule_limits={"any": "0:hours"})
    del rules["trigger_minimum"]["any"]
    rules["trigger_minimum"]["gsm8k"] = "0"
    planning, tasks, notes = imported({"lmeh": rules})
    assert (planning, tasks) == (PlanningSettings(), {})
    told = "\n".join(notes)
    assert "lmeh.owner: dropped" in told
    assert "'0:hours' limits nothing" in told
    assert "lmeh.trigger_minimum: it has no 'any'" in told


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("task_types", "text", "numerical | signature"),
        ("task_types", ["numerical", "signature"], "numerical | signature"),
        ("task_dependency", ["lmeh:arc:ok"], "FRAMEWORK:TASK:present|ok|equal:VALUE"),
        ("task_dependency", ["lmeh:arc:better:1"], "FRAMEWORK:TASK:present|ok|equal:VALUE"),
        ("task_dependency", ["lmeh::ok:ok"], "FRAMEWORK:TASK:present|ok|equal:VALUE"),
        ("task_dependency", ["lmeh:arc:equal:high"], "FRAMEWORK:TASK:present|ok|equal:VALUE"),
        ("task_dependency", ["lmeh:arc:equal:nan"], "FRAMEWORK:TASK:present|ok|equal:VALUE"),
        ("task_dependency", [{"a": 1}], "FRAMEWORK:TASK:present|ok|equal:VALUE"),
        ("taxonomy_dependency", ["live:0.8:0.8"], "NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES"),
        ("taxonomy_dependency", ["live:80:0.8:10"], "NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES"),
        ("taxonomy_dependency", ["live:0.8:x:10"], "NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES"),
        ("taxonomy_dependency", ["live:0.8:nan:10"], "NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES"),
        ("schedule_limits", "1:week", "N:session|block|hours|minutes"),
        ("schedule_limits", "-1:hours", "N:session|block|hours|minutes"),
        ("schedule_limits", "1.5:hours", "N:session|block|hours|minutes"),
        ("schedule_limits", "hours", "N:session|block|hours|minutes"),
        ("schedule_limits", ["1:hours", "2:hours"], "N:session|block|hours|minutes"),
        ("schedule_limits", "99999999999999999999:hours", "N:session|block|hours|minutes"),
        ("schedule_limits", "٣:hours", "N:session|block|hours|minutes"),
        ("taxonomy_dependency", ["live:0.8:0.8:99999999999"], "NAME:MIN_SCORE:MIN_SUCCESS:MIN_SAMPLES"),
        ("trigger_minimum", "99999999999999999999", "N (a whole number)"),
        ("trigger_minimum", "some", "N (a whole number)"),
        ("trigger_minimum", True, "N (a whole number)"),
        ("trigger_minimum", None, "N (a whole number)"),
    ],
)
def test_malformed_values_are_refused_with_their_grammar(field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_frameworks({"lmeh": framework(**{field: {"gsm8k": value}})})
    shown = value[0] if field.endswith("dependency") else value
    expected = f"framework 'lmeh', task 'gsm8k': {field}: {shown!r} is malformed; write {said}"
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("field", ["schedule_limits", "trigger_minimum", "taxonomy_dependency"])
def test_a_number_of_thousands_of_figures_is_refused_in_a_few_words(field: str) -> None:
    digits = "9" * 5_000
    value = {"schedule_limits": f"{digits}:hours", "taxonomy_dependency": f"t:0:0:{digits}"}.get(
        field, digits
    )
    with pytest.raises(ConfigError, match="is malformed; write") as caught:
        import_frameworks({"lmeh": framework(**{field: {"gsm8k": value}})})
    assert len(str(caught.value)) < 400


def test_a_rule_of_no_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lmeh\.trigger_minimum: ' ' names no task"):
        import_frameworks({"lmeh": framework(trigger_minimum={" ": "1"})})


@pytest.mark.parametrize(
    ("frameworks", "name", "said"),
    [
        ({}, None, "no object with at least one framework"),
        ([], None, "no object with at least one framework"),
        (SHIPPED, None, "choose one with --framework: lmeh, lmeh-generative,"),
        (SHIPPED, "helm", "'helm': there is no such framework; there are: lmeh,"),
        ({"lmeh": []}, None, "lmeh: [] is no object"),
        ({"lmeh": {"schedule_limits": "24:hours"}}, None, "lmeh.schedule_limits: '24:hours' is no object"),
    ],
)
def test_what_is_no_framework_is_refused(frameworks: Any, name: str | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_frameworks(frameworks, name)
    assert said in str(caught.value)


names = st.sampled_from(["any", "gsm8k", "mmlu"])
gates = st.sampled_from([NO_GATE, "lmeh:arc:ok:ok", "signatures:config:equal:abc", "lmeh:arc:present:x"])
taxonomies = st.sampled_from([NO_GATE, "live:0.5:0.9:3", "live:1:0:0"])
schedules = st.sampled_from(["none:none", "24:hours", "2:session", "30:minutes", "7:block"])


@given(
    st.dictionaries(names, st.lists(gates, max_size=2)),
    st.dictionaries(names, st.lists(taxonomies, max_size=2)),
    st.dictionaries(names, schedules),
    st.dictionaries(names, st.sampled_from(["0", "1", "3"])),
)
def test_every_task_gets_the_rule_it_had(
    dependency: dict[str, list[str]],
    taxonomy: dict[str, list[str]],
    schedule: dict[str, str],
    minimum: dict[str, str],
) -> None:
    fields = {
        "task_dependency": dependency,
        "taxonomy_dependency": taxonomy,
        "schedule_limits": schedule,
        "trigger_minimum": minimum,
    }
    planning, tasks, _ = imported({"lmeh": fields})
    for name in ("gsm8k", "mmlu", "another"):
        rule = tasks.get(name, PlanningRule()).over(planning)

        def said(field: dict[str, Any], silent: Any, name: str = name) -> Any:
            return field.get(name, field.get("any", silent))

        texts = [*said(dependency, []), *said(taxonomy, [])]
        assert len(rule.gates) == sum(text != NO_GATE for text in texts)
        assert rule.trigger_minimum == int(said(minimum, "0"))
        expected = said(schedule, "none:none")
        if expected != "none:none":
            assert rule.schedule is not None
            assert f"{rule.schedule.every:g}:{rule.schedule.unit}" == expected
        elif rule.trigger_minimum == 0 and int(minimum.get("any", "0")) == 0:
            assert rule.schedule is None
        assert rule.problem() is None


def test_signatures_keep_their_framework_and_their_gates() -> None:
    document = yaml.safe_load(import_frameworks(SHIPPED, "signatures").text)
    assert {t["name"]: t["framework"] for t in document["tasks"]} == dict.fromkeys(
        ("config", "identity", "tokenizer"), "signatures"
    )
    planning, _, notes = imported(
        {"lmeh": framework(task_dependency={"any": ["signatures:tokenizer:equal:ab12", "lmeh:arc:ok:ok"]})}
    )
    assert planning.gates[0] == TaskGate.model_validate({"task": "tokenizer", "is": "equal", "value": "ab12"})
    assert any("hashes are made in another way here" in note for note in notes)
    assert any(
        note.endswith("task tokenizer: it must be configured under tasks with framework: signatures")
        for note in notes
    )
    assert any(note.endswith("task arc: it must be configured under tasks") for note in notes)


def test_several_frameworks_are_one_configuration() -> None:
    """The first that is not signatures speaks for all tasks; the signatures have their own rules in full."""
    together = {
        **SHIPPED,
        "lmeh-generative": framework(
            schedule_limits={"any": "24:hours", "gsm8k": "6:hours"},
            taxonomy_dependency={"any": ["liveness_v0:0.8:0.8:10"]},
        ),
    }
    planning, tasks, _ = imported(
        together, ["signatures", "lmeh-generative", "lmeh-generative-external"], blocks_per_session=12
    )
    alone, named, _ = imported(together, "lmeh-generative")
    assert planning == alone.model_copy(update={"blocks_per_session": 12})
    assert tasks["gsm8k"] == named["gsm8k"]
    of_signatures, own, _ = imported(together, "signatures")
    assert list(tasks) == ["gsm8k", "tokenizer", "config", "identity"]
    for name in ("tokenizer", "config", "identity"):
        assert tasks[name].over(planning) == own[name].over(of_signatures), name
    assert tasks["identity"].over(planning).gates == (), "the gate of the others' tasks is none of theirs"
    result = import_frameworks(together, ["signatures", "lmeh-generative", "lmeh-generative-external"])
    assert result.text.startswith("# Planning rules of the frameworks 'lmeh-generative', ")
    comment = result.text.partition("# Of 'lmeh-generative-external', for the entry of each")[2]
    lines = comment.splitlines()[1:]
    rest = yaml.safe_load("\n".join(line.removeprefix("#") for line in lines))
    assert PlanningRule.model_validate(rest["planning"]).over(planning).gates == ()
    assert rest["planning"] == {"schedule": None, "gates": []}
    assert any("lmeh-generative-external: what it says of tasks" in note for note in result.notes)
    with pytest.raises(ConfigError, match="no such framework"):
        import_frameworks(together, ["signatures", "helm"])


def test_a_task_of_two_frameworks_has_one_rule() -> None:
    def rules(hours: int) -> dict[str, Any]:
        return framework(schedule_limits={"any": f"{hours}:hours", "gsm8k": "6:hours"})

    same = {"a": rules(24), "b": rules(12)}
    _, tasks, _ = imported(same, ["a", "b"])
    assert list(tasks) == ["gsm8k"]
    other = {**same, "b": framework(schedule_limits={"any": "12:hours", "gsm8k": "7:hours"})}
    with pytest.raises(ConfigError, match="'gsm8k' has other rules in the framework 'b' than in 'a'"):
        imported(other, ["a", "b"])
    assert import_frameworks(same, ["a", "a"]) == import_frameworks(same, "a")
