"""Roster files, and the installation that their tests open again and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testbench_dagster.stages.workspace import Workspace

Opener = Callable[..., Workspace]
PUBLIC = "http://8.8.8.8:9001"


def entry(address: str, **changes: Any) -> dict[str, Any]:
    """An entry of a roster; None leaves a key out."""
    plain = {"address": address, "service": "s", "base_url": f"{PUBLIC}/{address}/v1", "model": "m"}
    return {k: v for k, v in {**plain, **changes}.items() if v is not None}


def write_roster(path: Path, entries: Sequence[Any], **more: Any) -> None:
    path.write_text(json.dumps({"suppliers": list(entries), **more}), encoding="utf-8")
