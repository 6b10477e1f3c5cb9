"""What can be wrong with material of a relay on Pocket; each is a ``ValueError`` too."""

from __future__ import annotations

from typing import Literal

from testbench_dagster.core.errors import ShannonError

#: What an answer failed at, in the order it is checked.
Reason = Literal[
    "empty",
    "unmarshal",
    "miner_error",
    "unsigned",
    "session_header",
    "payload_hash",
    "no_public_key",
    "signature",
    "payload",
]


class CodecError(ShannonError):
    """Bytes are no such protobuf message, or values do not fit into one."""


class RingError(ShannonError):
    """A ring cannot be signed for, or bytes are no ring signature."""


class ResponseError(ShannonError):
    """A supplier's answer proves nothing; ``reason`` says which check it failed."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason
