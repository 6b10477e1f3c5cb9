"""Where the files of an installation lie on a disk with little space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from testbench_dagster.config import HOME_ENV, Config
from testbench_dagster.stores.disk import LOW_BYTES, free_bytes, left


def low_space(config: Config) -> Iterator[str]:
    """Tell in a line of each disk on which little is free, by the variable that moves what lies there."""
    told: set[int] = set()
    folders = {HOME_ENV: config.home}
    if dagster_home := os.environ.get("DAGSTER_HOME"):
        folders["DAGSTER_HOME"] = Path(dagster_home)
    for variable, path in folders.items():
        try:
            folder, free = free_bytes(path)
            device = folder.stat().st_dev
        except OSError:  # what keeps it from being made is told by the stores
            continue
        if free < LOW_BYTES and device not in told:
            told.add(device)
            yield (
                f"{variable} {path}: {left(path)}, less than {LOW_BYTES // 2**20} MB: without any, nothing "
                f"that is measured can be stored; free some space there, keep less (retention), or set "
                f"{variable} to a folder on another disk"
            )
