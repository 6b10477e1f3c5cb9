"""How much longer things take on this machine because others use it too."""

from __future__ import annotations

import os


def times_slower() -> float:
    """How many processes shared each core in the last minute; 1 where there was room for all.

    For bounds on what the product promises of a machine that keeps up with it.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
