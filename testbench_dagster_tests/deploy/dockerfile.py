"""deploy/Dockerfile, by its instructions."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser

DOCKERFILE = Path(__file__).parents[2] / "deploy" / "Dockerfile"

Stage = list[dict[str, Any]]


@cache
def stages() -> list[Stage]:
    """The instructions of each stage; the first are what stands before all of them."""
    with tempfile.TemporaryDirectory() as folder:  # the parser opens its file for writing
        copied = Path(folder) / "Dockerfile"
        copied.write_bytes(DOCKERFILE.read_bytes())
        steps = DockerfileParser(str(copied)).structure
    found: list[Stage] = [[]]
    for step in steps:
        if step["instruction"] == "FROM":
            found.append([])
        if step["instruction"] != "COMMENT":
            found[-1].append(step)
    return found


def values(stage: Stage, instruction: str) -> list[str]:
    """What each instruction of a kind says."""
    return [step["value"] for step in stage if step["instruction"] == instruction]


def environment(stage: Stage) -> dict[str, str]:
    """The variables of a stage."""
    return dict(pair.split("=", 1) for text in values(stage, "ENV") for pair in text.split())
