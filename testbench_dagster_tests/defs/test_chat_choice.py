"""Choices on chat as assets: a task of each choice for who only chats, its docs noted, its answers scored."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import SCORES
from testbench_dagster_tests.defs.conftest import opened_instance, starter_settings
from testbench_dagster_tests.tasks.chat_choice.stock import mmlu
from testbench_dagster_tests.tasks.quiz import jsonl


@pytest.mark.slow
def test_choices_are_asked_on_the_localnet(localnet: LocalnetProcess, tmp_path: Path) -> None:
    rows = [mmlu(i) for i in range(6)]
    rows[2]["choices"][1] = rows[2]["choices"][0]
    settings = starter_settings(localnet)
    settings["suppliers"] = settings["suppliers"][:2]
    data = {"test": jsonl(tmp_path / "test.jsonl", rows)}
    settings["tasks"] = [{"name": "mmlu_abstract_algebra", "num_fewshot": 0, "data": data, "samples": 5}]
    settings["choices_on_chat"] = True
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        report = Testbench(workspace).run()
        assert (report.tasks, report.problem) == (("mmlu_abstract_algebra", "mmlu_abstract_algebra~chat"), "")
        scores = list(workspace.documents.find(SCORES, {"task": "mmlu_abstract_algebra~chat"}))
        chats = {s.key for s in workspace.config.settings.suppliers if s.api == "chat"}
        assert {score["supplier"] for score in scores} == chats and 0 < len(chats) < 2
        assert all(set(score["metrics"]) == {"letter_acc", "answered_letter"} for score in scores)
        with opened_instance(workspace) as instance:
            record = instance.fetch_materializations(
                dg.AssetRecordsFilter(
                    dg.AssetKey("task_datasets"), asset_partitions=["mmlu_abstract_algebra~chat"]
                ),
                limit=1,
            ).records[0]
        assert record.asset_materialization is not None
        notes = record.asset_materialization.metadata["doc_notes"].value
        assert notes == {"left out: two of its options are equal": 1}
        page = (workspace.config.home / "published/feed.json").read_text(encoding="utf-8")
        assert "mmlu_abstract_algebra~chat" in json.dumps(json.loads(page))
