"""The block ``price`` of a supplier, in `testbench.yaml` and in the entries of supplier sources."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import field_validator, model_validator

from testbench_dagster.core.price import Price
from testbench_dagster.core.rules import Strict

#: Dearest price per million tokens that is believed, in any currency: a slip of units would be beyond it.
_MOST = 1_000_000_000


class SupplierPrice(Strict):
    """See :class:`~testbench_dagster.core.price.Price`; both are required, 0 says that it costs nothing."""

    prompt: float
    completion: float

    @model_validator(mode="before")
    @classmethod
    def _both(cls, value: Any) -> Any:
        if not isinstance(value, (dict, SupplierPrice)):
            raise ValueError(
                f"{_shown(value)} is no price; write e.g. {{prompt: 0.15, completion: 0.60}}, per million "
                "tokens"
            )
        return value

    @field_validator("prompt", "completion", mode="before")
    @classmethod
    def _amount(cls, value: Any) -> Any:
        """A plain number: a text such as "$0.15" names a currency, which nobody converts."""
        if isinstance(value, bool):
            return value  # refused with its own words
        if isinstance(value, str):  # a variable's value, or 1e-3, which YAML reads as a text
            with suppress(ValueError):
                value = float(value)
        if not isinstance(value, (int, float)):
            raise ValueError(
                f"{_shown(value)} is no number; write the price per million tokens without a currency, "
                "such as 0.15"
            )
        if not 0 <= value <= _MOST:  # NaN is not, either
            raise ValueError(
                f"{_shown(value)} is no price per million tokens; write a number from 0 (free) to {_MOST:,}"
            )
        return value

    def of_tokens(self) -> Price:
        """The same as the value that suppliers have."""
        return Price(self.prompt, self.completion)


def _shown(value: Any) -> str:
    """A value for a message; a source may give any, of any length."""
    return f"a {type(value).__name__}" if isinstance(value, (dict, list)) else repr(value)[:40]
