"""The sandboxes that there are on this machine, for tests of what they hold."""

from __future__ import annotations

import os
from functools import cache

import pytest

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox.bubblewrap import Bubblewrap
from testbench_dagster.sandbox.landlocked import Landlocked
from testbench_dagster.sandbox.programs import Sandbox

KINDS: dict[str, type[Bubblewrap] | type[Landlocked]] = {"bubblewrap": Bubblewrap, "Landlock": Landlocked}


@cache
def _missing(name: str) -> str | None:
    """Why a sandbox cannot be started here; whether it holds is what tests are for."""
    try:
        KINDS[name]().run("pass")
    except SandboxError as error:
        return str(error)
    return None


def started(name: str) -> Sandbox:
    """A sandbox that starts here; skips where it does not, but fails in CI, which installs what it takes."""
    if (why := _missing(name)) is not None:
        told = f"{name}: {why}"
        if os.environ.get("TESTBENCH_REQUIRE_SERVERS") == "1" and name == "bubblewrap":
            pytest.fail(told)
        pytest.skip(told)
    return KINDS[name]()
