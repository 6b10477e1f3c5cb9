from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbench_dagster_tests.relays.servers import Supplier


@pytest.fixture
def supplier() -> Iterator[Supplier]:
    server = Supplier()
    yield server
    server.stop()
