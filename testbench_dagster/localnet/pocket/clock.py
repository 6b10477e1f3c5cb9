"""Blocks on a clock that tests may hold in their hands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from testbench_dagster.core.wording import counted


@dataclass
class BlockClock:
    """Height of a simulated chain: ``base`` at first, one more every ``block_s`` seconds of ``now()``.

    Without ``block_s`` it only moves when told. It never goes back.
    """

    base: int = 1
    block_s: float | None = None
    now: Callable[[], float] = time.monotonic
    _since: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.base < 1:
            raise ValueError(f"the chain begins at height {self.base}; want at least 1")
        if self.block_s is not None and self.block_s <= 0:
            raise ValueError(f"a block every {self.block_s} seconds; want more than 0")
        self._since = self.now()

    @property
    def height(self) -> int:
        """The height now."""
        if self.block_s is None:
            return self.base
        return self.base + int((self.now() - self._since) / self.block_s)

    def advance(self, blocks: int) -> int:
        """Add blocks at once and return the height then; the block under way keeps its time."""
        if blocks < 0:
            raise ValueError(f"{counted(blocks, 'block')}; a chain does not go back")
        self.base += blocks
        return self.height

    def reach(self, height: int) -> int:
        """Go to a height, whose block begins now, and return it."""
        if height < self.height:
            raise ValueError(f"height {height} is below {self.height}; a chain does not go back")
        self.base, self._since = height, self.now()
        return height
