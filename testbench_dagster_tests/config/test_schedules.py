"""``schedules:`` as configured: what may be written, and what is told of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from testbench_dagster.config import load_config
from testbench_dagster.config.schedules import Cron
from testbench_dagster.config.settings import AUTOMATION_NAMES
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.build import build_definitions

GOOD: dict[str, Any] = {"name": "mornings", "suppliers": ["a*@*"], "cron": "0 6 * * 1-5"}


def written(folder: Path, *schedules: dict[str, Any], **settings: Any) -> Path:
    path = folder / "testbench.yaml"
    whole = {"tasks": [{"name": "starter_logic"}], "schedules": list(schedules), **settings}
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path


def test_a_schedule_says_whom_what_and_when(tmp_path: Path) -> None:
    other = {"name": "weekly", "services": ["text", "!code"], "tasks": ["mmlu"], "cron": "@weekly"}
    config = load_config(written(tmp_path, GOOD, {**other, "timezone": "Europe/Berlin", "enabled": False}))
    first, second = config.settings.schedules
    assert (first.whom, first.what, first.when) == ("suppliers a*@*", "all tasks", "0 6 * * 1-5 (UTC)")
    assert (second.whom, second.what) == ("services text, !code", "tasks mmlu")
    assert second.when == "@weekly (Europe/Berlin)"
    assert (first.enabled, second.enabled) == (True, False)
    assert config.settings.schedule("weekly") is second
    assert config.settings.schedule("daily") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a-b"}, "schedules[0].name: 'a-b' cannot name a schedule; use 1 to 80 letters"),
        ({"name": "a" * 81}, "cannot name a schedule"),
        ({"name": "retention"}, "schedules[0].name: 'retention' names another schedule or sensor already"),
        ({"suppliers": ["alice"]}, "schedules[0].suppliers: 'alice' can match no key of a supplier"),
        ({"suppliers": []}, "schedules[0].suppliers: the list is empty"),
        ({"suppliers": "a@b"}, "schedules[0].suppliers: 'a@b' is no list of patterns; write it like ['a@b']"),
        ({"suppliers": None}, "schedules[0]: schedule 'mornings' says of nobody; give suppliers or services"),
        ({"services": ["x", "x"]}, "schedules[0].services: 'x' stands there twice; remove one"),
        ({"tasks": []}, "schedules[0].tasks: the list is empty"),
        ({"tasks": "mmlu"}, "schedules[0].tasks: 'mmlu' is no list of tasks; write it like ['mmlu']"),
        ({"cron": "every night"}, "schedules[0].cron: 'every night' is no cron expression; write it like"),
        ({"cron": "0 25 * * *"}, "schedules[0].cron: '0 25 * * *' is no cron expression"),
        ({"cron": "* * * * * *"}, "schedules[0].cron: '* * * * * *' is no cron expression"),
        ({"timezone": "Berlin"}, "schedules[0].timezone: 'Berlin' is no time zone; write it like"),
        ({"timezone": "../../etc/passwd"}, "is no time zone"),
        ({"timezone": ""}, "schedules[0].timezone: '' is no time zone"),
        ({"every": 5}, "schedules[0].every: unknown key 'every' in schedules[0]"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_remedy(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, {**GOOD, **changes}))
    assert message in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, {**GOOD, "cron": "x"}, GOOD, {**GOOD, "timezone": "x", "name": "b"}))
    told = str(error.value).splitlines()
    assert len(told) == 2
    assert "schedules[0].cron" in told[0] and "schedules[2].timezone" in told[1]


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"schedules\[1\]\.name: 'mornings' names another schedule"):
        load_config(written(tmp_path, GOOD, GOOD))


def test_what_only_dagster_knows_is_told_when_it_loads(tmp_path: Path, monkeypatch: Any) -> None:
    """Both at once, in the words of the configuration."""
    written(tmp_path, {**GOOD, "cron": "0 0 30 2 *"}, {**GOOD, "name": "config"}, {**GOOD, "name": "fine"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        build_definitions()
    assert str(error.value).splitlines() == [
        "schedules[0].cron: '0 0 30 2 *' is no cron expression; write it like '0 2 * * *'",
        "schedules[1].name: 'config' is a word that Dagster keeps for itself; choose another name",
    ]


def test_no_name_of_the_platform_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    repository = build_definitions().get_repository_def()
    taken = {d.name for d in (*repository.sensor_defs, *repository.schedule_defs)}
    assert taken <= AUTOMATION_NAMES


FIELDS = st.sampled_from(
    "* */5 0 5,7 1-4 1-4/2 ? L mon MON-FRI jan 1#2 L5 7 31 23/2".split()  # noqa: SIM905  readable as crons
)
CRONS = st.lists(FIELDS, min_size=5, max_size=5).map(" ".join) | st.sampled_from(["@daily", "@YEARLY"])


@given(CRONS)
def test_what_dagster_takes_is_not_refused_before(cron: str) -> None:
    try:
        dg.ScheduleDefinition(name="tried", cron_schedule=cron, job_name="tried")
    except dg.DagsterInvalidDefinitionError:
        return
    assert TypeAdapter(Cron).validate_python(cron) == cron


@given(st.text(alphabet="0123456789*/,-# abcxyzL?@()%$;'\u0660", max_size=20))
def test_any_text_is_taken_or_refused_in_words(text: str) -> None:
    told = ""
    try:
        TypeAdapter(Cron).validate_python(text)
    except ValidationError as error:
        told = str(error)
    assert not told or "is no cron expression" in told
