"""The stores that processes coordinate through: SQLite and MongoDB alike."""

from testbench_dagster_tests.stores.conftest import store, target

__all__ = ["store", "target"]
