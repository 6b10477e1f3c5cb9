"""The block `price` of a supplier: what it means, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.config import SupplierConfig
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.price import Price
from testbench_dagster_tests.config.test_services import _own_home, loaded

__all__ = ["_own_home"]


def configured(folder: Path, **changes: Any) -> SupplierConfig:
    plain = {"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    (found,) = loaded(folder, suppliers=[{**plain, **changes}]).settings.suppliers
    return found


def test_a_price_is_per_million_tokens_of_both_kinds(tmp_path: Path) -> None:
    price = configured(tmp_path, price={"prompt": 0.15, "completion": 2}).own_price
    assert price == Price(0.15, 2.0)
    assert price.of(1_000_000, 500_000) == pytest.approx(1.15)
    assert Price.from_document(price.to_document()) == price


def test_what_is_not_said_is_unknown_and_zero_is_free(tmp_path: Path) -> None:
    assert configured(tmp_path).own_price is None
    free = configured(tmp_path, price={"prompt": 0, "completion": 0}).own_price
    assert free is not None and free.of(10**9, 10**9) == 0


def test_a_number_that_yaml_or_a_variable_gives_as_a_text_is_one(tmp_path: Path) -> None:
    assert configured(tmp_path, price={"prompt": "1e-3", "completion": "0.5"}).own_price == Price(0.001, 0.5)


@pytest.mark.parametrize(
    ("price", "told"),
    [
        ({"prompt": -1, "completion": 1}, "price.prompt: -1 is no price per million tokens; write a number"),
        ({"prompt": 1, "completion": float("nan")}, "price.completion: nan is no price"),
        ({"prompt": float("inf"), "completion": 1}, "price.prompt: inf is no price"),
        ({"prompt": 10**400, "completion": 1}, "is no price per million tokens"),
        ({"prompt": "$0.15", "completion": 1}, r"price.prompt: '\$0.15' is no number; write the price per"),
        ({"prompt": [1], "completion": 1}, "price.prompt: a list is no number"),
        ({"prompt": None, "completion": 1}, "price.prompt: None is no number"),
        ({"prompt": True, "completion": 1}, "price.prompt: true is no number"),
        ({"prompt": 1}, "price.completion: is required but missing; add it"),
        ({"completion": 1}, "price.prompt: is required but missing; add it"),
        ({"prompt": 1, "completion": 1, "cached": 0.5}, "unknown key 'cached' in suppliers.0..price"),
        (0.15, "price: 0.15 is no price; write e.g. {prompt: 0.15, completion: 0.60}"),
    ],
)
def test_a_wrong_price_is_told_with_the_key_the_value_and_the_remedy(
    tmp_path: Path, price: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        configured(tmp_path, price=price)


def test_a_budget_of_money_is_kept_in_millionths_and_of_a_service_its_own(tmp_path: Path) -> None:
    budget = loaded(tmp_path, budget={"money_per_day": "0.30", "money_services": {"text": 2}}).settings.budget
    assert budget.money_of_service("external") == 300_000
    assert budget.money_of_service("text") == 2_000_000
    assert budget.of_service("text") is None, "relays are counted apart"
    assert loaded(tmp_path).settings.budget.money_of_service("text") is None


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({"money_per_day": -1}, "budget.money_per_day: -1 is no budget in money; write a number from 0 to"),
        ({"money_per_day": float("nan")}, "budget.money_per_day: nan is no budget in money"),
        ({"money_per_day": 10**400}, "budget.money_per_day: 1000"),
        ({"money_per_day": "$5"}, r"budget.money_per_day: '\$5' is no amount of money; write it without"),
        ({"money_per_day": True}, "budget.money_per_day: true is no number"),
        ({"money_services": {"text": [5]}}, "budget.money_services.text: a list is no amount of money"),
        ({"money": 5}, "unknown key 'money' in budget"),
    ],
)
def test_a_wrong_budget_of_money_is_told_with_the_key_the_value_and_the_remedy(
    tmp_path: Path, budget: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, budget=budget)
