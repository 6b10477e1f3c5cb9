"""What a document store looks at while something is done: for the tests and benchmarks of bounded reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from pymongo import MongoClient

from testbench_dagster.stages.workspace import Workspace

_STEPS = 10  # of SQLite's virtual machine between two calls of the handler


@contextlib.contextmanager
def examined(workspace: Workspace) -> Iterator[Callable[[], int]]:
    """Count what the document store looks at until the end of the block; call what is yielded.

    On MongoDB keys and documents, by its profiler; on SQLite steps of its virtual machine, of which each row
    looked at takes some.
    """
    uri = workspace.config.mongo_uri
    with _steps(workspace) if uri is None else _profiled(uri) as count:
        yield count


@contextlib.contextmanager
def _steps(workspace: Workspace) -> Iterator[Callable[[], int]]:
    """Steps of the statements that this thread's connection runs."""
    opened: Any = workspace.documents
    documents = opened._documents  # without the bodies of attempts outside
    calls = 0

    def handler() -> int:
        nonlocal calls
        calls += 1
        return 0

    with documents._connections.use() as connection:
        connection.set_progress_handler(handler, _STEPS)
    try:
        yield lambda: calls * _STEPS
    finally:
        with documents._connections.use() as connection:
            connection.set_progress_handler(None, 0)


@contextlib.contextmanager
def _profiled(uri: str) -> Iterator[Callable[[], int]]:
    """Keys and documents that a MongoDB server looks at for one database."""
    with MongoClient(uri) as client:
        database = client.get_default_database()
        database.command("profile", 0)
        database.drop_collection("system.profile")
        database.create_collection("system.profile", capped=True, size=64 << 20)
        database.command("profile", 2)

        def count() -> int:
            found = database["system.profile"].find({"ns": {"$ne": f"{database.name}.system.profile"}})
            return sum(one.get("keysExamined", 0) + one.get("docsExamined", 0) for one in found)

        try:
            yield count
        finally:
            database.command("profile", 0)
