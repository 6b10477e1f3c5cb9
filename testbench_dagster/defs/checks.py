"""What the packages' checks share: a verdict with its violations in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

_VIOLATIONS_SHOWN = 50  # they live in an event row


def violations_result(
    violations: Mapping[str, Any],
    severity: dg.AssetCheckSeverity,
    check: str | None = None,
    /,
    **extra: Any,
) -> dg.AssetCheckResult:
    """Passed where there are no violations; the first of them, and ``extra``, are shown.

    ``check`` names it, where an asset evaluates it itself.
    """
    shown = dict(list(violations.items())[:_VIOLATIONS_SHOWN])
    return dg.AssetCheckResult(
        check_name=check,
        passed=not violations,
        severity=severity,
        metadata={"offenders": shown, "n_offenders": len(violations), **extra},
    )
