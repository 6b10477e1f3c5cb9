"""Fixtures that several folders share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from testbench_dagster_tests import servers


@contextlib.contextmanager
def _server_or_skip(server: contextlib.AbstractContextManager[str]) -> Iterator[str]:
    """Yield the server's URI; without a server skip, or fail where ``TESTBENCH_REQUIRE_SERVERS=1``."""
    with contextlib.ExitStack() as stack:
        try:
            uri = stack.enter_context(server)
        except servers.ServerMissing as missing:
            if os.environ.get("TESTBENCH_REQUIRE_SERVERS") == "1":
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        yield uri


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    with _server_or_skip(servers.mongo_server()) as uri:
        yield uri


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    with _server_or_skip(servers.postgres_server()) as uri:
        yield uri


@pytest.fixture
def mongo_database_uri(mongo_uri: str) -> Iterator[str]:
    with servers.mongo_database(mongo_uri) as uri:
        yield uri


@pytest.fixture
def postgres_database_uri(postgres_uri: str) -> Iterator[str]:
    with servers.postgres_database(postgres_uri) as uri:
        yield uri
