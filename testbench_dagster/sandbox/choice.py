"""Which sandbox model-written code runs in on this machine, tried out before it is used."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox.bubblewrap import Bubblewrap
from testbench_dagster.sandbox.landlocked import Landlocked
from testbench_dagster.sandbox.programs import Sandbox

#: Seconds for which a sandbox that did not hold is not tried again.
_REST_S = 60.0


class CodeSandbox:
    """The first of some sandboxes that holds here. One that holds is believed for the life of the process."""

    def __init__(self, kinds: Sequence[Sandbox] | None = None) -> None:
        self._kinds = kinds
        self._holds: Sandbox | None = None
        self._problem = ""
        self._tried_at: float | None = None
        self._lock = threading.Lock()

    def problem(self) -> str | None:
        """Why no sandbox holds here, one reason per kind; None where one does."""
        with self._lock:
            if self._holds is not None:
                return None
            if self._tried_at is not None and time.monotonic() - self._tried_at < _REST_S:
                return self._problem
            reasons = []
            for kind in self._kinds if self._kinds is not None else (Bubblewrap(), Landlocked()):
                reason = kind.probe()
                if reason is None:
                    self._holds = kind
                    return None
                reasons.append(f"{kind.name}: {reason}")
            self._problem, self._tried_at = "; ".join(reasons), time.monotonic()
            return self._problem

    def sandbox(self) -> Sandbox:
        """The sandbox that holds.

        Raises:
            SandboxError: none does.
        """
        if (problem := self.problem()) is not None or self._holds is None:
            raise SandboxError(f"no sandbox holds on this machine: {problem}")
        return self._holds


#: That of this process.
CODE = CodeSandbox()
