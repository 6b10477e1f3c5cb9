"""Which dataclasses of a package can be changed after they were made."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator


def changeable(package: str) -> set[str]:
    """Names of the dataclasses defined in a package whose fields can be set anew."""
    found = set()
    for kind in _dataclasses(package):
        one = object.__new__(kind)
        name = dataclasses.fields(kind)[0].name
        try:
            setattr(one, name, None)
        except dataclasses.FrozenInstanceError:
            continue
        found.add(kind.__name__)
    return found


def _dataclasses(package: str) -> Iterator[type]:
    root = importlib.import_module(package)
    names = [package, *(info.name for info in pkgutil.walk_packages(root.__path__, f"{package}."))]
    for name in names:
        for kind in vars(importlib.import_module(name)).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == name:
                yield kind
