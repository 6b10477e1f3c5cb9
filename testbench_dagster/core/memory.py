"""Memory of Python's own: when it looks for what nobody needs any more."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keeping_all() -> Iterator[None]:
    """While this lasts no garbage that refers to itself is looked for: for whoever makes much that stays.

    Python looks through all objects again and again as their number grows, which takes longer than making
    them. What nothing refers to is freed at once all the same. Also a decorator.
    """
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()
