"""Which tasks there are is a closed list; nothing of the package is imported for it."""

import pytest
from pydantic import ValidationError

from testbench_dagster.config.settings import TaskConfig
from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.sandbox import landlock
from testbench_dagster.tasks.fresh import items, remark
from testbench_dagster.tasks.fresh.adapter import Fresh
from testbench_dagster.tasks.fresh.generators import (
    EXECUTE_ANSWERS,
    FRESH_TASKS,
    GENERATORS,
    OWN_CHECK,
    generator_of,
)
from testbench_dagster_tests.tasks.fresh.drawing import needs_package, spec

#: Others that must not be there: they follow PYTHONHASHSEED, have no answer, or give full marks to nonsense.
NEVER = (
    "codeio", "isomorphic_strings", "knight_swap", "list_functions", "ransom_note", "word_ladder", "boxnet",
    "graph_color", "propositional_logic", "rubiks_cube", "rush_hour", "complex_arithmetic",
    "game_of_life_halting", "composite", "gsm_symbolic",
)  # fmt: skip


def test_there_are_thirty_and_none_that_executes_answers() -> None:
    assert len(GENERATORS) == len(set(GENERATORS)) == 30
    assert len(EXECUTE_ANSWERS) == 9
    assert not set(GENERATORS) & {*EXECUTE_ANSWERS, *NEVER}
    assert set(GENERATORS) >= OWN_CHECK
    assert framework_plug("fresh").task_names() == FRESH_TASKS


@pytest.mark.parametrize("name", FRESH_TASKS)
def test_the_thirty_can_be_configured(name: str) -> None:
    assert TaskConfig(name=name, framework="fresh").framework == "fresh"
    assert generator_of(name, name) == name.removeprefix("fresh_")


@pytest.mark.parametrize("name", [*EXECUTE_ANSWERS, *NEVER])
@pytest.mark.parametrize("prefix", ["fresh_", ""])
def test_no_other_can_be_configured(name: str, prefix: str) -> None:
    with pytest.raises(ValidationError, match="is no task of framework 'fresh'; name one of fresh_basic"):
        TaskConfig(name=prefix + name, framework="fresh")
    # nor in the worker, whatever brought it there: a bundle of somebody else, say
    adapter = Fresh()
    data = None
    for call in (
        lambda task: adapter.register(task),
        lambda task: adapter.build_prompts(task, data, [0], "chat", "seed"),
        lambda task: adapter.score(task, data, []),
    ):
        with pytest.raises(TaskInputError, match=f"'{prefix}{name}' is no task of the framework fresh"):
            call(spec(prefix + name))
    with pytest.raises(ValueError, match="is not on the list"):
        items.made(name, 0)


@pytest.mark.parametrize("name", GENERATORS)
def test_names_without_the_prefix_are_none(name: str) -> None:
    with pytest.raises(ValidationError, match="is no task of framework"):
        TaskConfig(name=name, framework="fresh")


def test_the_nine_are_told_why() -> None:
    with pytest.raises(TaskInputError, match="executes the text of an answer"):
        generator_of("x", "fresh_countdown")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"items": 0}, "options.items: 0 is no whole number from 1 to 10000"),
        ({"items": True}, "options.items: True"),
        ({"items": 10_001}, "options.items: 10001"),
        ({"generator": "countdown"}, "options.generator means nothing to 'fresh_gcd'; there is: items"),
        ({"difficulty": 3}, "options.difficulty means nothing"),
    ],
)
def test_options_that_mean_nothing(options: dict, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TaskConfig(name="fresh_gcd", framework="fresh", options=options)


@pytest.mark.parametrize("version", [None, "0.1.24", "0.2.0"])
def test_without_the_package_the_task_says_what_to_install(version, monkeypatch) -> None:
    def found(name: str) -> str:
        if version is None:
            raise items.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(items.importlib.metadata, "version", found)
    what = "is not installed" if version is None else f"{version} is installed"
    with pytest.raises(TaskInputError, match=rf"task 'fresh_gcd': .*{what}.*testbench_dagster\[fresh\]'"):
        Fresh().register(spec("fresh_gcd"))
    with pytest.raises(TaskInputError, match="pip install"):
        Fresh().build_prompts(spec("fresh_gcd"), None, [0], "chat", "seed")


def test_a_kernel_without_a_sandbox_is_told(monkeypatch) -> None:
    plug = framework_plug("fresh")
    monkeypatch.setattr(landlock, "probe", lambda: None)
    assert plug.remark() is None
    monkeypatch.setattr(landlock, "probe", lambda: "no Landlock here")
    assert "generator's own check" in plug.remark() and "no Landlock here" in plug.remark()
    assert remark.remark is plug.remark


@needs_package
def test_those_without_a_check_of_their_own_have_the_common_one() -> None:
    data = {name: items.made(name, 1)[0] for name in GENERATORS}
    common = next(iter(data.values())).__class__.__mro__[1].score_answer
    assert {name for name, one in data.items() if type(one).score_answer is not common} == OWN_CHECK
