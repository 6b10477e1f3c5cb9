"""Schema versions of both stores: which one this code works with, and what is said of any other.

Raise a number with a step in :mod:`testbench_dagster.stores.migrations` that leads to it. A store without a
version that holds something has version 0: it was made before versions were written.
"""

from __future__ import annotations

from testbench_dagster.core.errors import StoreError

#: Of the document store, SQLite and MongoDB.
DOCUMENTS_SCHEMA = 2
#: Of the dataset store, SQLite and PostgreSQL.
DATASETS_SCHEMA = 1


class SchemaError(StoreError):
    """A store has another schema version than this code works with."""


def check_schema(store: str, found: int, wanted: int) -> None:
    """Refuse a store of another schema version; ``store`` says which one, for the message.

    Raises:
        SchemaError: it is older, and can be migrated, or newer.
    """
    if found < wanted:
        raise SchemaError(
            f"{store} was made by an earlier version of testbench_dagster (schema {found}, this one works "
            f"with {wanted}); end what works on it and run `testbench migrate`"
        )
    if found > wanted:
        raise SchemaError(
            f"{store} was made by a newer version of testbench_dagster (schema {found}, this one works with "
            f"{wanted}); install that version, or restore a copy from before it"
        )
