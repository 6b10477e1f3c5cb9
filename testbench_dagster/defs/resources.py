"""Resources: the opened installation. Assets ask for ``workspace: dg.ResourceParam[Workspace]``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from testbench_dagster.workspace import Workspace


class WorkspaceResource(dg.ConfigurableResourceFactory[Workspace]):
    """Opens the installation once per run and closes it afterwards.

    ``config_path`` names the configuration; empty means ``TESTBENCH_CONFIG`` or the working directory.
    """

    config_path: str = ""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Workspace]:
        """Yield the installation for one run."""
        with Workspace.open(self.config_path or None) as workspace:
            yield workspace
