"""What a check of an installation found: one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a ``warning`` is no problem that keeps the installation from working.

    ``paste``: lines of testbench.yaml that mend it, where ``detail`` says.
    """

    what: str
    detail: str
    ok: bool = True
    warning: bool = False
    paste: str = ""

    @property
    def failed(self) -> bool:
        """Whether the installation cannot work like this."""
        return not self.ok and not self.warning
