"""Scores each supplier when its own turn has ended, while others are still being asked.

In a thread of its own: the engine only names the supplier. What fails here is left to the stage that scores
everything afterwards, and costs no relay.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.stages.relay.writer import AttemptWriter
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace

#: Suppliers whose turns end within this are scored together, in seconds; a run that ends meanwhile leaves
#: them to the scoring that follows it.
TOGETHER_S = 1.0
#: How long an interrupted run waits for what is being scored.
_GIVE_UP_S = 5.0

_log = logging.getLogger(__name__)


class LaneScorer:
    """Scores suppliers in the background; a context manager, at whose end nothing is under way any more."""

    def __init__(
        self,
        workspace: Workspace,
        writer: AttemptWriter,
        heartbeat: Heartbeat,
        tasks: Sequence[str] | None,
    ) -> None:
        self._workspace = workspace
        self._writer = writer
        self._heartbeat = heartbeat
        self._tasks = tasks
        self._began = datetime.now(UTC)  # a service that was gone since is looked for at the end only
        self._ended: list[str] = []
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="testbench-scores", daemon=True)
        self._thread.start()

    def __enter__(self) -> LaneScorer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(None if kind is None else _GIVE_UP_S)

    def lane_ended(self, supplier: str) -> None:
        """Take note that all attempts of a supplier are with the writer; returns at once."""
        with self._wake:
            self._ended.append(supplier)
            self._wake.notify()

    def _run(self) -> None:
        while suppliers := self._next():
            try:
                self._writer.flush()
                score_new(
                    self._workspace,
                    suppliers,
                    tasks=self._tasks,
                    heartbeat=self._heartbeat,
                    unless_waiting_since=self._began,
                )
            except Exception as error:
                _log.warning(
                    "%d suppliers were not scored when their turns ended, and will be after the run: %s",
                    len(suppliers),
                    error,
                )

    def _next(self) -> list[str]:
        """Wait for suppliers whose turns have ended; empty when the run has."""
        with self._wake:
            self._wake.wait_for(lambda: self._ended or self._closing)
            if self._wake.wait_for(lambda: self._closing, TOGETHER_S):
                return []
            ended, self._ended = self._ended, []
            return ended
