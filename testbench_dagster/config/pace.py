"""The blocks ``pace``: how fast a supplier, or the suppliers of a service, may be asked."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from testbench_dagster.core.pace import Pace
from testbench_dagster.core.rules import Strict

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class PaceBounds(Strict):
    """Requests and tokens that any minute may hold, and requests that any 24 hours may; unset is no bound."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000)
    requests_per_day: int | None = Field(default=None, ge=1, le=1_000_000_000)

    @model_validator(mode="after")
    def _some(self) -> PaceBounds:
        if (self.requests_per_minute, self.tokens_per_minute, self.requests_per_day) == (None, None, None):
            raise ValueError(
                "bounds nothing; give requests_per_minute, tokens_per_minute or requests_per_day, or "
                "remove it"
            )
        return self

    def of(self, account: str) -> Pace:
        """The same, counted under an account."""
        return Pace(account, self.requests_per_minute, self.tokens_per_minute, self.requests_per_day)


class SupplierPace(PaceBounds):
    """The pace of one supplier; those that name the same ``account`` share theirs, as one API key does.

    In a source it holds for each of its suppliers.
    """

    account: str | None = None

    @field_validator("account")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and not _ACCOUNT.fullmatch(value):
            raise ValueError(
                f"{value[:80]!r} is no name of an account: use 1 to 64 letters, digits, '_', '-' or '.'"
            )
        return value

    def of_supplier(self, key: str) -> Pace:
        """The pace of the supplier with this key, under its own account or the one that it shares."""
        return self.of(f"supplier:{key}" if self.account is None else f"account:{self.account}")


class ServicePace(PaceBounds):
    """The pace of a service: of all its suppliers together, as one key allows, or of each (``per``)."""

    per: Literal["service", "supplier"] = "service"
