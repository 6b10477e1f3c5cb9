"""One installation on SQLite and on MongoDB, opened again and again with another configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.workspace import Workspace

Opener = Callable[..., Workspace]
PUBLIC = "http://8.8.8.8:9001"


def entry(address: str, **changes: Any) -> dict[str, Any]:
    """An entry of a roster; None leaves a key out."""
    plain = {"address": address, "service": "s", "base_url": f"{PUBLIC}/{address}/v1", "model": "m"}
    return {k: v for k, v in {**plain, **changes}.items() if v is not None}


def write_roster(path: Path, entries: Sequence[Any], **more: Any) -> None:
    path.write_text(json.dumps({"suppliers": list(entries), **more}), encoding="utf-8")


@pytest.fixture(params=["sqlite", "mongo"])
def open_workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opener]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    opened: list[Workspace] = []

    def build(*suppliers: dict[str, Any], sources: Sequence[dict[str, Any]] = (), **blocks: Any) -> Workspace:
        base = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
        path = tmp_path / "testbench.yaml"
        settings = {
            "tasks": [{"name": "starter_logic"}],
            "suppliers": [base | s for s in suppliers],
            "supplier_sources": list(sources),
            **blocks,
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        opened.append(Workspace(load_config(path)))
        return opened[-1]

    yield build
    for workspace in opened:
        workspace.close()
