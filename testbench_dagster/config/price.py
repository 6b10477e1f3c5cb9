"""The block ``price`` of a supplier, in `testbench.yaml` and in the entries of supplier sources."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from pydantic import BeforeValidator, field_validator, model_validator

from testbench_dagster.core.price import Price
from testbench_dagster.core.rules import Strict

#: Dearest price per million tokens that is believed, in any currency: a slip of units would be beyond it.
_MOST = 1_000_000_000
#: Largest budget of a day: stores keep its millionths in 64 bits, with room for the dearest relay.
_MOST_MONEY = 1_000_000_000_000


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
        return _amount_up_to(
            _MOST,
            value,
            no_number="is no number; write the price per million tokens without a currency, such as 0.15",
            beyond=f"is no price per million tokens; write a number from 0 (free) to {_MOST:,}",
        )

    def of_tokens(self) -> Price:
        """The same as the value that suppliers have."""
        return Price(self.prompt, self.completion)


def _number(value: Any) -> Any:
    """What a variable's value says, or 1e-3, which YAML reads as a text; all else as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _amount_up_to(most: int, value: Any, *, no_number: str, beyond: str) -> Any:
    """A number from 0 to a bound; the two texts say what a value is instead, and what to write."""
    value = _number(value)
    if isinstance(value, bool):
        return value  # refused with its own words
    if not isinstance(value, (int, float)):
        raise ValueError(f"{_shown(value)} {no_number}")
    if not 0 <= value <= most:  # NaN is not, either
        raise ValueError(f"{_shown(value)} {beyond}")
    return value


def _money(value: Any) -> Any:
    """A plain number from 0 on: a text such as "$5" names a currency, which nobody converts."""
    return _amount_up_to(
        _MOST_MONEY,
        value,
        no_number="is no amount of money; write it without a currency, in that of the prices, "
        "such as 5 or 0.50",
        beyond=f"is no budget in money; write a number from 0 to {_MOST_MONEY:,}",
    )


#: An amount of money in the currency of the prices.
Money = Annotated[float, BeforeValidator(_money)]


def _shown(value: Any) -> str:
    """A value for a message; a source may give any, of any length."""
    return f"a {type(value).__name__}" if isinstance(value, (dict, list)) else repr(value)[:40]
