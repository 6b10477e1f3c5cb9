"""When a value is the wanted one, and calls the wanted calls."""

import pytest

from testbench_dagster.tasks.tools.fences import within_fence
from testbench_dagster.tasks.tools.matching import WantedCall, alike, all_met

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 3},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "note": {"type": "string"},
    },
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Oslo", "OSLO"),
        ("Straße", "STRASSE"),
        ("Caf\u00e9", "cafe\u0301"),
        (5, 5.0),
        (10**20, 1e20),
        ([1, "A"], [1.0, "a"]),
        ({"a": [{"b": None}]}, {"a": [{"b": None}]}),
        (True, True),
    ],
)
def test_alike(one, other):
    assert alike(one, other) and alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", 5),
        (1, True),
        (0, False),
        (0, None),
        ("", None),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ([], {}),
        ({"a": 1}, {"A": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({}, None),
        (0.1, 0.2),
        ("Oslo", "Oslo "),
    ],
)
def test_not_alike(one, other):
    assert not alike(one, other) and not alike(other, one)


@pytest.mark.parametrize(
    ("arguments", "met"),
    [
        ({"city": "oslo"}, True),
        ({"city": "Oslo", "days": 3, "unit": "Celsius"}, True),
        ({"city": "Oslo", "days": 4}, False),
        ({"city": "Oslo", "unit": "fahrenheit"}, False),
        ({"city": "Oslo", "note": ""}, False),
        ({"city": "Oslo", "other": 1}, False),
        ({"days": 3}, False),
        ({}, False),
    ],
)
def test_defaults_may_be_given_or_left_out(arguments, met):
    wanted = WantedCall.from_gold({"name": "weather", "arguments": {"city": "Oslo"}}, PARAMETERS)
    assert wanted.is_met("weather", arguments) is met
    assert not wanted.is_met("Weather", arguments)


@pytest.mark.parametrize(
    ("arguments", "met"),
    [
        ({"city": "Oslo", "days": 5, "note": "x"}, True),
        ({"city": "Kristiania", "days": 6.0}, True),
        ({"city": "Oslo"}, False),
        ({"city": "Oslo", "days": 3}, False),
    ],
)
def test_several_values_may_be_as_good(arguments, met):
    gold = {
        "name": "weather",
        "arguments": {"city": "Oslo", "days": 5, "note": "x"},
        "also": {"city": ["Kristiania"], "days": [6]},
        "optional": ["note"],
    }
    assert WantedCall.from_gold(gold, PARAMETERS).is_met("weather", arguments) is met


def test_a_wanted_default_may_be_left_out():
    wanted = WantedCall.from_gold({"name": "w", "arguments": {"city": "Oslo", "days": 3.0}}, PARAMETERS)
    assert wanted.is_met("w", {"city": "Oslo"})
    assert wanted.is_met("w", {"city": "Oslo", "days": 3})
    assert not wanted.is_met("w", {"city": "Oslo", "days": 2})


def call(values, optional=()):
    return WantedCall("f", {"a": values}, frozenset(optional))


def test_calls_are_matched_in_any_order_and_each_once():
    wanted = [call([1]), call([2]), call([2])]
    one, two = ("f", {"a": 1}), ("f", {"a": 2})
    assert all_met(wanted, [two, one, two])
    assert not all_met(wanted, [one, one, two])
    assert not all_met(wanted, [one, two])
    assert not all_met(wanted, [one, two, two, two])
    assert all_met([], []) and not all_met([], [one])


def test_a_call_that_fits_two_wanted_ones_is_given_to_the_one_that_needs_it():
    # taken greedily the first would keep the only call that the second accepts
    assert all_met([call([1, 2]), call([1])], [("f", {"a": 1}), ("f", {"a": 2})])
    assert all_met([call([1, 2, 3]), call([1, 2]), call([1])], [("f", {"a": n}) for n in (1, 2, 3)])
    assert not all_met([call([1, 2]), call([1]), call([1])], [("f", {"a": n}) for n in (1, 2, 2)])


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}\n'),
        ('```\n{"a": 1}\n```', '{"a": 1}\n'),
        ('Here you are:\n\n```JSON\n{"a": 1}\n```\nAnything else?', '{"a": 1}\n'),
        ('~~~json\n{"a": "```"}\n~~~', '{"a": "```"}\n'),
        ('````json\n{"a": 1}\n````', '{"a": 1}\n'),
        ('```json\r\n{"a": 1}\r\n```\r\n', '{"a": 1}\r\n'),
        ('```json {"a": 1}```', ' {"a": 1}'),
        ('```{"a": 1}```', '{"a": 1}'),
        ('```json\n{"a":\n1}```', '{"a":\n1}'),
        ('  ```json\n  {"a": "\u2028"}\n  ```', '  {"a": "\u2028"}\n'),
    ],
)
def test_one_fence_is_read_through(text, inside):
    assert within_fence(text) == inside


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"a": 1}',
        '```json\n{"a": 1}',
        '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```',
        '```{"a": 1}``` ```{"a": 2}```',
        "```",
        "``````",
    ],
)
def test_none_several_or_open_fences_are_not(text):
    assert not (within_fence(text) or "").strip()
