"""Dagster's own storage: PostgreSQL when ``DAGSTER_POSTGRES_URL`` is set, SQLite otherwise.

One ``dagster.yaml`` thus serves a laptop and production without an edit (``storage.custom``). A test runs
both back ends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster import Field, StringSource

from testbench_dagster.config import installation_home
from testbench_dagster.defs.dagster_internals import (
    ConfigurableClass,
    ConfigurableClassData,
    DagsterStorage,
)
from testbench_dagster.defs.held_connections import HeldSqliteStorage, held_on_postgres
from testbench_dagster.defs.postgres import POSTGRES_ENV, postgres_server
from testbench_dagster.defs.set_back import without_dates_ahead


class TestbenchStorage(DagsterStorage, ConfigurableClass):
    """Chooses the storage when Dagster loads its instance; never instantiated itself."""

    __test__ = False  # pytest: the name starts with "Test", but this is no test class

    @classmethod
    def config_type(cls) -> Any:
        """``base_dir``: folder of the SQLite files, by default Dagster's home."""
        return {"base_dir": Field(StringSource, is_required=False)}

    @classmethod
    def from_config_value(  # type: ignore[override]  # a factory: what it returns is another storage
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage:
        """Build the PostgreSQL or the SQLite storage."""
        url = os.environ.get(POSTGRES_ENV)
        if url:
            from dagster_postgres import DagsterPostgresStorage

            # the URL stays in the environment: instance data is shown in the UI and on command lines
            url = postgres_server(url).storage_url
            made = DagsterPostgresStorage(postgres_url=url, inst_data=inst_data)
            return without_dates_ahead(held_on_postgres(made, url))
        base = config_value.get("base_dir") or default_base_dir()
        return without_dates_ahead(HeldSqliteStorage.from_local(base_dir=str(base), inst_data=inst_data))


def default_base_dir() -> Path:
    """``DAGSTER_HOME``, else the installation's home (``dg dev``, ``dagster dev`` without any variable).

    That is where `testbench run` and `up` keep their runs; Dagster speaks of a temporary folder then, so it
    is told.
    """
    home = os.environ.get("DAGSTER_HOME")
    if home:
        return Path(home).absolute() / "storage"
    base = installation_home() / "dagster" / "storage"
    logging.getLogger("dagster").info(f"Runs are kept in {base}, with those of `testbench run` and `up`.")
    return base
