"""Exported and published parquet files load where analysts load them: datasets, pandas, polars; offline."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.board.published import render_page
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.publish.publish import publish
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

#: Texts that are hard on readers: control characters, other scripts, half a surrogate pair's escape, nothing.
TEXTS = ('héllo "wörld"\n\u0000 \U0001f600', "", "\u202edlrow", "null", "1e3", " ")

_DATASETS = """
import json, sys
import datasets
found = {}
for path in sys.argv[1:]:
    loaded = datasets.load_dataset("parquet", data_files=path, split="train")
    loaded.set_format(None)
    found[path] = [loaded.num_rows, loaded.column_names, json.dumps(loaded[:], default=str)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export and a publication of all kinds of answers, by name."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("TESTBENCH_CACHE_DIR", str(folder / "cache"))
        settings = {"tasks": [{"name": "starter_logic", "samples": "all"}]}
        with Workspace(configuration(folder, settings)) as workspace:
            facts = Facts(workspace)
            facts.on_roster(ALPHA)
            facts.on_roster(BETA)
            asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
            for doc, text in enumerate(TEXTS):
                asked.answer(doc, float(doc % 2), at=NOW - timedelta(minutes=doc), text=text)
            asked.facts.attempt(
                asked.registration, len(TEXTS), Fault.EMPTY, NOW, prompt_id=asked.prompt(len(TEXTS))
            )
            bench = Testbench(workspace)
            exported = bench.export(folder / "out")
            published = publish(workspace, render_page).files
    found = {path.stem: path for path in exported}
    found |= {f"published {path.stem}": path for path in published if path.suffix == ".parquet"}
    return found


def plain(value: Any) -> Any:
    """A value as it is compared: one word for all that is missing, times and numbers as such."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (datetime, pd.Timestamp)):
        return pd.Timestamp(value).isoformat()
    if isinstance(value, (bytes, str, bool)):
        return value
    return float(value) if hasattr(value, "__float__") else value


def columns_of(rows: list[dict[str, Any]], names: list[str]) -> dict[str, list[Any]]:
    return {name: [plain(row[name]) for row in rows] for name in names}


def test_pandas_and_polars_load_every_file(files: dict[str, Path]) -> None:
    assert {"attempts", "scores", "answers", "item_matrix", "windows", "leaderboard"} <= set(files)
    for name, path in files.items():
        table = pq.read_table(path)
        wanted = columns_of(table.to_pylist(), table.column_names)
        frame = pd.read_parquet(path)
        assert list(frame.columns) == table.column_names, name
        assert columns_of(frame.to_dict("records"), table.column_names) == wanted, name
        lazy = pl.read_parquet(path)
        assert lazy.columns == table.column_names, name
        assert columns_of(lazy.to_dicts(), table.column_names) == wanted, name
        assert pl.scan_parquet(path).select(pl.len()).collect().item() == table.num_rows
    assert pq.read_table(files["answers"])["answer"].to_pylist()[:3] == [*TEXTS[:3]]


@pytest.mark.slow
def test_datasets_loads_every_file_without_a_network(files: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own: its caches and its idea of being offline come from the environment.

    Of no file without a row can it make anything, whoever wrote it.
    """
    files = {name: path for name, path in files.items() if pq.read_metadata(path).num_rows}
    assert {"attempts", "scores", "answers", "item_matrix", "windows", "leaderboard", "prompts"} <= set(files)
    assert "published item_matrix" in files
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _DATASETS, *map(str, files.values())],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for name, path in files.items():
        table = pq.read_table(path)
        rows, columns, held = found[str(path)]
        assert (rows, columns) == (table.num_rows, table.column_names), name
        loaded = json.loads(held)
        for column in columns:
            wanted = [plain(value) for value in table[column].to_pylist()]
            if table.schema.field(column).type == pa.timestamp("ms", tz="UTC"):
                got = [None if value is None else plain(pd.Timestamp(value)) for value in loaded[column]]
            else:
                got = [plain(value) for value in loaded[column]]
            assert got == wanted, (name, column)
