"""The catalog stage: epochs and who agrees on them, what is stale, the fingerprint sensors look at."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import Config, load_config
from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.sampling import sequence
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.sample.catalogue import (
    _is_stale,
    catalogue_fingerprint,
    current_epoch,
    refresh_dataset,
    refresh_prompts,
    roll_epoch,
    stale_tasks,
    start_epoch,
)
from testbench_dagster.stages.sample.data import definition_changed
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster.stores.documents.collections import EPOCHS, PROMPTS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.reads import documents_read, operations
from testbench_dagster_tests.stages.score.facts import Facts, configuration

N_DOCS = 12
YAML = """task: {name}
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question {{{{n}}}}:"
doc_to_target: "{{{{n}}}}"
num_fewshot: 0
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 64}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list: [{{name: plain, filter: [{{function: take_first}}]}}]
"""


def settings(folder: Path, names: tuple[str, ...] = ("one", "two"), **more: Any) -> Config:
    own = folder / "mine"
    own.mkdir(exist_ok=True)
    for name in names:
        (own / f"{name}.yaml").write_text(YAML.format(name=name), encoding="utf-8")
    rows = "".join(json.dumps({"n": i}) + "\n" for i in range(N_DOCS))
    (folder / "docs.jsonl").write_text(rows, encoding="utf-8")
    tasks = [{"name": name, "data": {"test": "docs.jsonl"}, "samples": 5} for name in names]
    return configuration(folder, {"tasks": tasks, "task_paths": ["mine"], **more})


@pytest.fixture(autouse=True)
def _embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def workspace(tmp_path: Path, worker: FrameworkWorker) -> Iterator[Workspace]:
    with Workspace(settings(tmp_path)) as opened:
        opened.worker = worker
        yield opened
        del opened.worker


@pytest.fixture
def spec(workspace: Workspace) -> TaskSpec:
    return workspace.spec("one")


def now() -> datetime:
    return datetime.now(UTC)


def epochs(documents: DocumentStore, task: str = "one") -> list[int]:
    return [e["epoch"] for e in documents.find(EPOCHS, {"task": task}, sort=[("epoch", 1)])]


# --- epochs ---------------------------------------------------------------------------------------------


def test_an_epoch_older_than_the_instant_is_followed_by_one_more(
    workspace: Workspace, spec: TaskSpec
) -> None:
    refresh_dataset(workspace, spec)
    first = refresh_prompts(workspace, spec)
    assert (first.epoch.epoch, first.built, first.revealed) == (1, 10, None)
    instant = now() + timedelta(milliseconds=1)
    time.sleep(0.005)
    rolled = refresh_prompts(workspace, spec, roll_before=instant)
    assert (rolled.epoch.epoch, rolled.built, rolled.revealed) == (2, 10, first.epoch)
    again = refresh_prompts(workspace, spec, roll_before=instant)
    assert (again.epoch, again.built, again.revealed) == (rolled.epoch, 0, first.epoch)
    assert refresh_prompts(workspace, spec).revealed == first.epoch
    assert epochs(workspace.documents) == [1, 2]
    assert rolled.epoch.seed != first.epoch.seed
    stored = list(
        workspace.documents.find(PROMPTS, {"task": "one", "epoch": 2, "api": "chat"}, sort=[("position", 1)])
    )
    assert [p["doc_id"] for p in stored] == sequence(rolled.epoch.seed, N_DOCS)[:5]


def test_named_docs_are_asked_and_no_others(tmp_path: Path, worker: FrameworkWorker) -> None:
    """Other names are another epoch: under one, a place in the sequence never changes its doc."""

    def asked(samples: Any) -> list[int]:
        config = settings(tmp_path, ("one",))
        given = yaml.safe_load(config.path.read_text("utf-8"))
        given["tasks"][0]["samples"] = samples
        config.path.write_text(yaml.safe_dump(given), encoding="utf-8")
        with Workspace(load_config(config.path)) as opened:
            opened.worker = worker
            one = opened.spec("one")
            assert stale_tasks(opened, [one]) == [one]
            refresh_dataset(opened, one)
            report = refresh_prompts(opened, one)
            assert report.built == 2 * report.positions, "in both forms"
            assert stale_tasks(opened, [one]) == []
            where = {"task": "one", "epoch": report.epoch.epoch, "api": "chat"}
            found = [p["doc_id"] for p in opened.documents.find(PROMPTS, where, sort=[("position", 1)])]
            named = set(samples["ids"]) if isinstance(samples, dict) else set(range(N_DOCS))
            order = [doc for doc in sequence(report.epoch.seed, N_DOCS) if doc in named]
            assert found == order[: report.positions]
            assert epochs(opened.documents)[-1] == report.epoch.epoch
            numbers.append(report.epoch.epoch)
            del opened.worker
        return sorted(found)

    numbers: list[int] = []
    assert asked({"ids": [11, 0, 3]}) == [0, 3, 11]
    assert asked({"ids": [4, 0, 3]}) == [0, 3, 4]
    assert len(asked(3)) == 3
    assert asked({"ids": [5]}) == [5]
    assert numbers == [1, 2, 3, 4]


def test_docs_that_there_are_not_are_told_when_the_task_is_prepared(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    config = settings(tmp_path, ("one",))
    given = yaml.safe_load(config.path.read_text("utf-8"))
    for ids, said in (
        (
            [3, N_DOCS, 99],
            "samples.ids names 12, 99, but its split 'test' has 12 docs, from 0 to 11",
        ),
        (list(range(5, 30)), "samples.ids names 12, 13, 14, 15, 16 and 13 more, but"),
    ):
        given["tasks"][0]["samples"] = {"ids": ids}
        config.path.write_text(yaml.safe_dump(given), encoding="utf-8")
        with Workspace(load_config(config.path)) as opened:
            opened.worker = worker
            with pytest.raises(TaskError, match=re.escape(said)):
                refresh_dataset(opened, opened.spec("one"))
            assert opened.datasets.current("one") is None
            del opened.worker


def test_a_tick_of_a_clock_that_is_ahead_rolls_once(workspace: Workspace, spec: TaskSpec) -> None:
    """The instant may lie in the future of the machine that dates the epoch."""
    current_epoch(workspace, spec)
    ahead = now() + timedelta(seconds=90, microseconds=7)
    assert [roll_epoch(workspace, spec, ahead).epoch for _ in range(3)] == [2, 2, 2]
    assert roll_epoch(workspace, spec, ahead + timedelta(minutes=1)).epoch == 3
    assert roll_epoch(workspace, spec, ahead).epoch == 3, "an earlier instant never starts one"


def test_a_task_without_epochs_begins_with_the_first(workspace: Workspace, spec: TaskSpec) -> None:
    ahead = now() + timedelta(hours=1)
    assert roll_epoch(workspace, spec, ahead).epoch == 1
    assert roll_epoch(workspace, spec, ahead).epoch == 1
    assert current_epoch(workspace, workspace.spec("two")).epoch == 1
    assert epochs(workspace.documents, "two") == [1]


def test_the_seed_is_committed_before_any_prompt_exists(
    workspace: Workspace, spec: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh_dataset(workspace, spec)
    refresh_prompts(workspace, spec)
    workspace.worker.process("lm_eval").close()
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # no prompt can be built
    instant = now() + timedelta(seconds=1)
    with pytest.raises(TaskError):
        refresh_prompts(workspace, spec, roll_before=instant)
    (committed,) = workspace.documents.find(EPOCHS, {"task": "one", "epoch": 2})
    assert committed["seed_sha256"] == hashlib.sha256(committed["seed"].encode()).hexdigest()
    assert workspace.documents.count(PROMPTS, {"epoch": 2}) == 0
    monkeypatch.delenv("PYTHONHOME")
    report = refresh_prompts(workspace, spec, roll_before=instant)
    assert (report.epoch.epoch, report.epoch.commitment) == (2, committed["seed_sha256"])


def test_an_instant_without_a_zone_is_refused(workspace: Workspace, spec: TaskSpec) -> None:
    with pytest.raises(TaskError, match=r"roll_before 2026-01-05T03:00:00 has no time zone; add one"):
        roll_epoch(workspace, spec, datetime(2026, 1, 5, 3))


def test_fixed_seeds_differ_from_epoch_to_epoch(tmp_path: Path) -> None:
    seeds = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with Workspace(settings(folder, sampling={"epoch_seed": 7})) as workspace:
            for number in (1, 2):
                for name in ("one", "two"):
                    start_epoch(workspace, workspace.spec(name), number)
            seeds.append([e["seed"] for e in workspace.documents.find(EPOCHS, sort=[("_id", 1)])])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 4


def _roll(path: str, instant: datetime, start: Any, results: Any) -> None:
    with Workspace(load_config(path)) as workspace:
        spec = workspace.spec("one")
        workspace.documents.count(EPOCHS, {"task": "one"})
        start.wait()
        found = roll_epoch(workspace, spec, instant)
        results.put((found.epoch, found.seed))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
def test_processes_that_roll_at_once_agree_on_one_epoch(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store == "mongodb":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    with Workspace(settings(tmp_path)) as workspace:
        _race(workspace, workspace.spec("one"))


def _race(workspace: Workspace, spec: TaskSpec) -> None:
    current_epoch(workspace, spec)
    instant = now() + timedelta(seconds=1)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    arguments = (str(workspace.config.path), instant, start, results)
    processes = [context.Process(target=_roll, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert found == {(2, current_epoch(workspace, spec).seed)}
    assert epochs(workspace.documents) == [1, 2]


def test_the_current_epoch_is_one_query(
    workspace: Workspace, spec: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 60):
        start_epoch(workspace, spec, number)
    asked = operations(workspace.documents, monkeypatch)
    assert current_epoch(workspace, spec).epoch == 59
    assert asked == {"find": 1}


def stale(workspace: Workspace, spec: TaskSpec) -> bool:
    """Whether the next refresh registers the task again."""
    return _is_stale(spec, workspace.datasets.current(spec.name))


# --- registration ---------------------------------------------------------------------------------------


def test_an_edited_filter_leaves_prompts_and_hash_and_ends_staleness(
    workspace: Workspace, spec: TaskSpec
) -> None:
    before, changed = refresh_dataset(workspace, spec)
    assert changed and not stale(workspace, spec) and not definition_changed(spec, before)
    built = refresh_prompts(workspace, spec).built
    path = Path(spec.include[0]) / "one.yaml"
    path.write_text(YAML.format(name="one").replace("name: plain", "name: own"), encoding="utf-8")
    assert stale(workspace, spec) and definition_changed(spec, before)
    after, changed = refresh_dataset(workspace, spec)
    assert changed
    assert not stale(workspace, spec) and not definition_changed(spec, after)
    assert (after.task_hash, after.fingerprint) == (before.task_hash, before.fingerprint)
    assert after.config_hash != before.config_hash
    assert (before.flags.filters, after.flags.filters) == (["plain"], ["own"])
    assert (built, refresh_prompts(workspace, spec).built) == (10, 0)
    assert refresh_dataset(workspace, spec) == (after, False)


def test_a_comment_in_the_yaml_ends_staleness_too(workspace: Workspace, spec: TaskSpec) -> None:
    before, _ = refresh_dataset(workspace, spec)
    path = Path(spec.include[0]) / "one.yaml"
    path.write_text(YAML.format(name="one") + "# a remark\n", encoding="utf-8")
    assert stale(workspace, spec)
    after, _ = refresh_dataset(workspace, spec)
    assert not stale(workspace, spec)
    assert (after.task_hash, after.config_hash) == (before.task_hash, before.config_hash)


# --- what sensors look at -------------------------------------------------------------------------------


def test_a_task_is_stale_until_its_sequence_has_every_form(tmp_path: Path, workspace: Workspace) -> None:
    def stale() -> list[str]:
        return [spec.name for spec in stale_tasks(workspace, workspace.specs)]

    assert stale() == ["one", "two"]
    for spec in workspace.specs:
        refresh_dataset(workspace, spec)
    assert stale() == ["one", "two"]
    refresh_prompts(workspace, workspace.spec("one"))
    assert stale() == ["two"]
    refresh_prompts(workspace, workspace.spec("two"))
    assert stale() == []
    roll_epoch(workspace, workspace.spec("two"), now() + timedelta(seconds=1))
    assert stale() == ["two"]
    refresh_prompts(workspace, workspace.spec("two"))
    assert stale() == []
    workspace.documents.purge(PROMPTS, {"task": "one", "api": "completions", "position": 3})
    assert stale() == ["one"]
    (tmp_path / "docs.jsonl").write_text('{"n": 1}\n', encoding="utf-8")
    assert stale() == ["one", "two"]


def test_the_fingerprint_changes_with_the_catalogue_only(workspace: Workspace, spec: TaskSpec) -> None:
    seen = [catalogue_fingerprint(workspace)]

    def moved() -> bool:
        seen.append(catalogue_fingerprint(workspace))
        return seen[-1] != seen[-2]

    assert not moved()
    refresh_dataset(workspace, spec)
    assert moved()
    refresh_prompts(workspace, spec)
    assert moved()
    refresh_prompts(workspace, spec)
    assert not moved()
    path = Path(spec.include[0]) / "one.yaml"
    path.write_text(YAML.format(name="one").replace("name: plain", "name: own"), encoding="utf-8")
    assert not moved(), "only what is registered counts"
    refresh_dataset(workspace, spec)
    assert moved()
    roll_epoch(workspace, spec, now() + timedelta(seconds=1))
    assert moved()
    refresh_prompts(workspace, spec)
    assert moved()
    workspace.documents.purge(PROMPTS, {"task": "one", "epoch": 2, "api": "chat", "position": 0})
    assert moved()
    assert len(set(seen)) == 7, "it never takes an earlier value"


@pytest.mark.slow
def test_a_hundred_tasks_are_looked_at_in_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs of 100 prompts in two forms for each of 100 tasks: four queries, not one per task."""
    names = tuple(f"task_{i}" for i in range(100))
    with Workspace(settings(tmp_path, names)) as workspace:
        facts = Facts(workspace)
        for spec in workspace.specs:
            registration = facts.registration(spec.name, n_docs=5)
            for number in range(1, 4):
                start_epoch(workspace, spec, number)
            workspace.documents.put_new(
                PROMPTS,
                (
                    {
                        "_id": f"{spec.name}-{number}-{api}-{position}",
                        "task": spec.name,
                        "task_hash": registration.task_hash,
                        "epoch": number,
                        "api": api,
                        "position": position,
                        "doc_id": position,
                        "calls": 1,
                        "relayable": True,
                        "requests": [{"prompt": "x" * 200}],
                    }
                    for number in range(1, 4)
                    for api in ("chat", "completions")
                    for position in range(100)
                ),
            )
        catalogue_fingerprint(workspace)
        asked = operations(workspace.documents, monkeypatch)
        read = documents_read(workspace.documents, monkeypatch)
        catalogue_fingerprint(workspace)
        # newest epochs, whether others followed them, and prompts in two questions
        assert asked.total() == 4, "and one query of the dataset store"
        assert read == {"epochs": 100, "prompts": 200}, "of 300 and 60,000"
