"""docs/fresh.md says what is so."""

import re

import yaml

from testbench_dagster.config.settings import Settings
from testbench_dagster.tasks.fresh.answers import MOST_CHARS
from testbench_dagster.tasks.fresh.generators import EXECUTE_ANSWERS, FRESH_TASKS, ITEMS, MOST_ITEMS
from testbench_dagster.tasks.fresh.judge_child import CPU_S, MEMORY_BYTES
from testbench_dagster.tasks.fresh.version import PACKAGE_VERSION
from testbench_dagster_tests.acceptance.documents import broken_links, document, yaml_of
from testbench_dagster_tests.tasks.layouts import REPOSITORY

PAGE = document("docs/fresh.md")


def test_its_configuration_is_one() -> None:
    [block] = yaml_of(PAGE)
    settings = Settings.model_validate({"suppliers": [], **yaml.safe_load(block)})
    assert {task.framework for task in settings.tasks} == {"fresh"}
    assert settings.taxonomies == ["builtin:fresh"]


def test_it_lists_the_tasks_and_the_nine() -> None:
    assert sorted(set(re.findall(r"`(fresh_[a-z_]+)`", PAGE))) == sorted(FRESH_TASKS)
    section = PAGE.partition("## Security")[2].partition("They cannot be configured")[0]
    assert set(re.findall(r"`([a-z_0-9]+)`", section)) - {"eval"} == set(EXECUTE_ANSWERS)


def test_its_figures_are_those_of_the_code() -> None:
    assert f"only {PACKAGE_VERSION} is used" in PAGE
    assert f"`options: {{items: {ITEMS}}}`" in PAGE and f"(1 to {MOST_ITEMS:,})" in PAGE
    assert f"more than {MOST_CHARS:,}\ncharacters is wrong" in PAGE
    assert f"with {CPU_S:g} seconds of CPU\ntime and {MEMORY_BYTES >> 20} MB" in PAGE
    pinned = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"reasoning-gym=={PACKAGE_VERSION}"' in pinned


def test_its_links_lead_somewhere() -> None:
    assert broken_links("docs/fresh.md") == [] == broken_links("docs/taxonomies/fresh.md")
