"""Whose suppliers a store holds: one installation's. A second one over it would retire the first one's.

An installation is called as ``installation`` in testbench.yaml says, or by a name drawn once, which its home
holds for the folder of its configuration file. Hosts with homes of their own belong to it where they have
the same name, or the same sources and configured suppliers: their home takes note of it. Whoever belongs to
it may change its sources, and who is no longer listed leaves. Everybody else is refused.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.records.sources import InstallationRecord
from testbench_dagster.core.wording import are
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import content_hash, typed
from testbench_dagster.stores.files import create_folder, whole_file

_OWNER = "owner"
_ATTEMPTS = 20
_SHOWN = 5  # sources named in a message
_LONGEST = 200  # characters of a name that a home holds


class ForeignStore(ConfigError):
    """The store holds the suppliers of another installation."""


def own_store(workspace: Workspace, labels: Sequence[str], now: datetime) -> dict[str, str]:
    """Make sure that the store's suppliers are this installation's, and state what its sources are.

    Args:
        workspace: the installation.
        labels: names of its supplier sources.
        now: the present.

    Returns:
        What to tell, by what it is about: sources that it had before and has no more.

    Raises:
        ForeignStore: the store is another installation's.
        StoreError: the store failed, or other processes kept changing what it says.
    """
    config, documents = workspace.config, workspace.documents
    stated = _statement(config, labels)
    for _ in range(_ATTEMPTS):
        owner = typed.get(documents, InstallationRecord, _OWNER)
        kept = _kept_name(config)
        named = config.settings.installation
        name = named or kept or (owner.installation if owner else f"drawn-{secrets.token_hex(6)}")
        if owner is None:
            first = InstallationRecord(
                id=_OWNER,
                installation=name,
                named=named is not None,
                sources=list(labels),
                stated=stated,
                at=now,
                version=1,
            )
            if typed.put_new(documents, InstallationRecord, [first]):
                _keep_name(config, name)
                return {}
            continue
        if not _belongs(owner, named, kept, stated):
            raise ForeignStore(_refusal(config, owner))
        name = named or owner.installation
        if kept != name:
            _keep_name(config, name)
        is_named = named is not None or owner.named
        if (owner.installation, owner.named, owner.stated) == (name, is_named, stated):
            return {}
        where = {"_id": _OWNER, "version": owner.version}
        if typed.claim(
            documents,
            InstallationRecord,
            where,
            installation=name,
            named=is_named,
            sources=list(labels),
            stated=stated,
            at=now,
            version=owner.version + 1,
        ):
            return _removed(owner, labels)
    raise StoreError("whose suppliers the store holds could not be stated: other processes kept changing it")


def _belongs(owner: InstallationRecord, named: str | None, kept: str | None, stated: str) -> bool:
    """Whether a process is of the installation: by its name, by its home's, or as it has the same sources."""
    if owner.installation in (named, kept):
        return True
    another = named is not None and owner.named
    return owner.stated == stated and not another


def _statement(config: Config, labels: Sequence[str]) -> str:
    """Equal for configurations that list the same suppliers and sources, wherever they lie."""
    settings = config.settings
    read = [[source.label, source.file, source.url] for source in settings.supplier_sources]
    return content_hash([read, list(labels), sorted(supplier.key for supplier in settings.suppliers)])


def _removed(owner: InstallationRecord, labels: Sequence[str]) -> dict[str, str]:
    gone = [label for label in owner.sources if label not in labels]
    if not gone:
        return {}
    told = f"{_named(gone)} {are(len(gone))} no longer configured: whom no other source lists leaves"
    return {"supplier_sources": told}


def _refusal(config: Config, owner: InstallationRecord) -> str:
    sources = f"its sources are {_named(owner.sources)}" if owner.sources else "it has no sources"
    return (
        f"{config.path}: the document store holds the suppliers of another installation, "
        f"{owner.installation} ({sources}), which this one would retire; give this one a database of its own "
        "(TESTBENCH_MONGO_URI, or TESTBENCH_HOME for the embedded store), or, if they are one, use the same "
        f"testbench.yaml, or write installation: {owner.installation} in both"
    )


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return f"{', '.join(labels[:_SHOWN])}{more}"


# ---------------------------------------------------------------------------------------------- the home


def _file(config: Config) -> Path:
    """Of the configuration files of one folder; another that shares the home is of a second installation.

    By where the folder lies as seen from the home: both may be moved together.
    """
    return config.home / f"installation-{content_hash(os.path.relpath(config.path.parent, config.home))[:12]}"


def _kept_name(config: Config) -> str | None:
    try:
        return _file(config).read_text(encoding="utf-8")[:_LONGEST].strip() or None
    except (OSError, ValueError):
        return None


def _keep_name(config: Config, name: str) -> None:
    """Note it in the home; one that cannot be written is recognised by its sources and suppliers."""
    with contextlib.suppress(OSError, StoreError):
        create_folder(config.home)
        with whole_file(_file(config)) as partial:
            partial.write_text(f"{name}\n", encoding="utf-8")
