"""Which suppliers are trusted to serve their models, and who is compared with which of them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.workspace import Workspace


def references_of(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, Supplier]:
    """By supplier the reference of its model, where it has one and is not one itself.

    Of several references of a model the one that stands first in the configuration.
    """
    return {key: trusted[0] for key, trusted in all_references(workspace, suppliers).items()}


def trusted_suppliers(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, Supplier]:
    """The references among suppliers by key, in the order of the configuration."""
    known = {supplier.key: supplier for supplier in suppliers}
    keys = workspace.config.settings.reference_keys
    return {key: known[key] for key in keys if key in known}


def all_references(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, list[Supplier]]:
    """By supplier that is no reference all that there are of its model."""
    trusted = trusted_suppliers(workspace, suppliers)
    said = {one.key: one.reference for one in workspace.config.settings.suppliers}
    found: dict[str, list[Supplier]] = {}
    for supplier in suppliers:
        for key, reference in trusted.items() if supplier.key not in trusted else ():
            names = said[key]
            patterns = (reference.model,) if isinstance(names, bool) else names
            if any(fnmatchcase(supplier.model, pattern) for pattern in patterns):
                found.setdefault(supplier.key, []).append(reference)
    return found


def asked_otherwise(supplier: Supplier, reference: Supplier) -> str | None:
    """Why what two suppliers answer cannot be compared; None where it can."""
    if supplier.api == reference.api:
        return None
    return f"it is asked by {supplier.api}, the reference by {reference.api}, which makes other prompts"
