"""Runs the simulated Pocket network as a subprocess: what the demo, the CLI and end-to-end tests use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from testbench_dagster.localnet.run import LocalnetProcess, call, post

#: Seconds a block takes when nobody says.
BLOCK_S = 2.0
BLOCKS_PER_SESSION = 10

#: Height at which a simulation begins when nobody says: the first of a session.
FIRST_HEIGHT = 1001

_BIRTH = 1_767_225_600.0  # 2026-01-01, when the simulated chain is said to have begun


def height_by_calendar(block_s: float = BLOCK_S, blocks_per_session: int = BLOCKS_PER_SESSION) -> int:
    """The height a chain that began with 2026 would have now, at the next start of a session.

    A network started again so never comes back to heights and sessions it had before.
    """
    sessions = int(max(time.time() - _BIRTH, 0.0) / (block_s * blocks_per_session)) + 1
    return FIRST_HEIGHT + sessions * blocks_per_session


class PocketProcess(LocalnetProcess):
    """``python -m testbench_dagster.localnet --pocket`` as a context manager; never outlives this process.

    ``url`` is the first node's. What it inherits for plain localnet reads (:meth:`roster`, :meth:`stats`) is
    of the same personas over plain HTTP; it is changed by :meth:`sim` only.
    """

    def __init__(
        self,
        suppliers: int = 6,
        seed: int = 0,
        port: int = 0,
        *,
        block_s: float | None = BLOCK_S,
        blocks_per_session: int = BLOCKS_PER_SESSION,
        suppliers_per_session: int = 50,
        hosts: int = 2,
        nodes: int = 1,
        first_height: int = FIRST_HEIGHT,
        fail_mode: str = "500",
        fail_rate: float | None = None,
        latency_ms: float | None = None,
        answers: Path | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        """Keeps the options; nothing runs before :meth:`start`. ``block_s`` None: blocks by control only."""
        super().__init__(
            suppliers,
            seed,
            port,
            fail_mode=fail_mode,
            fail_rate=fail_rate,
            latency_ms=latency_ms,
            answers=answers,
            block_seconds=block_s or 0.0,
            start_timeout_s=start_timeout_s,
        )
        self._command += [
            "--pocket", "--blocks-per-session", str(blocks_per_session), "--hosts", str(hosts),
            "--nodes", str(nodes), "--suppliers-per-session", str(suppliers_per_session),
            "--first-height", str(first_height),
        ]  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Nodes, applications with their simulated keys, hosts, suppliers, session: ``/_sim/describe``."""
        answer: dict[str, Any] = call(f"{self.url}/_sim/describe")
        return answer

    def ledger(self, since: int = 0) -> list[dict[str, Any]]:
        """Relays that miners accepted, after that number."""
        relays: list[dict[str, Any]] = call(f"{self.url}/_sim/ledger?since={since}")["relays"]
        return relays

    def refusals(self, since: int = 0) -> list[dict[str, Any]]:
        """Relays that miners did not accept, after that number."""
        relays: list[dict[str, Any]] = call(f"{self.url}/_sim/refusals?since={since}")["relays"]
        return relays

    def sim(self, action: str, **fields: Any) -> dict[str, Any]:
        """Change the network; actions and fields are those of :mod:`.control`.

        Raises LocalnetError when it refuses, with what it says.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        return post(f"{self.url}/_sim/{action}", given)
