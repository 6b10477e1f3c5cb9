from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def vectors(shared: Path) -> dict[str, Any]:
    """What Go's ring-go and poktroll's generated code produced and accepted, from `../shared/vectors`."""
    path = shared.parent / "vectors" / "ring_vectors.json"
    if not path.is_file():
        pytest.skip(f"no signature vectors at {path}")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
