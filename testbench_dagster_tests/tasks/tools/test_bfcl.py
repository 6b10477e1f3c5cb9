"""Files of the shape that the Berkeley Function Calling Leaderboard publishes, written for these tests."""

from __future__ import annotations

import json
import re

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.tools.adapter import Tools
from testbench_dagster.tasks.tools.schemas import problem_of
from testbench_dagster_tests.tasks.tools.scripted import calling, means, right, scores, silent, spec


def function(name, properties, required=()):
    return {
        "name": name,
        "description": f"Does {name}.",
        "parameters": {"type": "dict", "properties": properties, "required": list(required)},
    }


def question(number, *functions, text="Do it.", kind="simple_python"):
    return {
        "id": f"{kind}_{number}",
        "question": [[{"role": "user", "content": text}]],
        "function": list(functions),
    }


def truth(number, *calls, kind="simple_python"):
    return {"id": f"{kind}_{number}", "ground_truth": list(calls)}


AREA = function(
    "geometry.area",
    {
        "base": {"type": "float", "description": "Base."},
        "height": {"type": "integer"},
        "unit": {"type": "string", "optional": True, "default": "cm"},
        "scale": {"type": "float", "description": "Optional."},
    },
    ["base", "height"],
)
SHOP = function(
    "Shop.order.v2",
    {
        "basket": {
            "type": "dict",
            "properties": {"size": {"type": "string", "enum": ["S", "L"]}, "gift": {"type": "boolean"}},
        },
        "points": {"type": "tuple", "items": {"type": "float"}},
        "tags": {"type": "array", "enum": ["a", "b"]},
        "extra": {"type": "any"},
        "type": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "dict", "properties": {"n": {"type": "integer"}}}},
    },
    ["basket"],
)
QUESTIONS = [question(0, AREA), question(1, SHOP, AREA)]
ANSWERS = [
    truth(0, {"geometry.area": {"base": [10, 10.5], "height": [5], "unit": ["cm", ""], "scale": ["", 2]}}),
    truth(
        1,
        {
            "Shop.order.v2": {
                "basket": [{"size": ["L", "large"], "gift": ["", True]}],
                "points": [[1.5, 2]],
                "tags": [],
                "extra": ["", "none"],
                "type": ["web"],
                "lines": [[{"n": [1, 2]}, {"n": [3]}]],
            }
        },
    ),
]


def write(folder, questions=QUESTIONS, answers=ANSWERS):
    """The files as they are published: one object a line, under a name that ends in .json."""
    folder.mkdir(exist_ok=True)
    files = {"test": folder / "BFCL_v4_simple_python.json"}
    files["test"].write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    if answers is not None:
        files["answers"] = folder / "possible_answer.json"
        files["answers"].write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    return files


@pytest.fixture
def task(tmp_path):
    return spec("bfcl_simple_python", write(tmp_path / "bfcl"))


@pytest.fixture
def data(task):
    return Tools().register(task).data


def test_types_become_those_of_json_schema(data):
    row = json.loads(data.docs[1])
    parameters = {tool["name"]: tool["parameters"] for tool in row["tools"]}
    assert parameters["geometry_area"] == {
        "type": "object",
        "properties": {
            "base": {"type": "number", "description": "Base."},
            "height": {"type": "integer"},
            "unit": {"type": "string", "default": "cm"},
            "scale": {"type": "number", "description": "Optional."},
        },
        "required": ["base", "height"],
    }
    shop = parameters["Shop_order_v2"]["properties"]
    assert shop["basket"]["type"] == "object" and shop["basket"]["properties"]["gift"] == {"type": "boolean"}
    assert shop["points"] == {"type": "array", "items": {"type": "number"}}
    assert shop["tags"] == {"type": "array", "items": {"enum": ["a", "b"]}}
    assert shop["extra"] == {} and shop["type"] == {"type": "string"}
    assert all(problem_of(one) is None for one in parameters.values())


def test_names_are_sent_as_suppliers_accept_them_and_shown_as_they_were(task, data):
    row = json.loads(data.docs[0])
    assert [tool["name"] for tool in row["tools"]] == ["geometry_area"]
    (made,) = scores(task, data, right, [0])
    assert json.loads(made.extracted["none"])[0]["name"] == "geometry.area"
    dotted = calling([("geometry.area", {"base": 10, "height": 5})])
    (made,) = scores(task, data, lambda row: dotted, [0])
    assert made.metrics["none"]["exact"] == made.metrics["none"]["schema_valid"] == 0


def test_names_that_would_be_the_same_or_too_long_are_told_apart(tmp_path):
    names = ["a.b", "a_b", "a-b", "x." * 60 + "y", "x." * 60 + "z", "größe"]
    functions = [function(name, {}) for name in names]
    answers = [truth(0, *({name: {}} for name in names))]
    task = spec("bfcl", write(tmp_path / "bfcl", [question(0, *functions)], answers))
    data = Tools().register(task).data
    row = json.loads(data.docs[0])
    sent = [tool["name"] for tool in row["tools"]]
    assert len(set(sent)) == len(names)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in sent)
    assert [row["names"].get(name, name) for name in sent] == names
    assert means(scores(task, data, right, [0]))["exact"] == 1


def test_first_values_are_right_and_valid(task, data):
    made = means(scores(task, data, right, [0, 1]))
    assert made == {"exact": 1, "triggered": 1, "schema_valid": 1, "called": 1}


@pytest.mark.parametrize(
    ("doc_id", "changes", "exact"),
    [
        (0, {}, 1),
        (0, {"base": 10.5}, 1),
        (0, {"base": 10.0, "height": 5.0}, 1),
        (0, {"base": 11}, 0),
        (0, {"base": "10"}, 0),
        (0, {"unit": None}, 1),
        (0, {"unit": "CM"}, 1),
        (0, {"unit": "m"}, 0),
        (0, {"scale": None}, 1),
        (0, {"scale": 3}, 0),
        (0, {"height": None}, 0),
        (0, {"other": 1}, 0),
        (1, {}, 1),
        (1, {"basket": {"size": "l"}}, 1),
        (1, {"basket": {"size": "large", "gift": True}}, 1),
        (1, {"basket": {"size": "large", "gift": False}}, 0),
        (1, {"basket": {"gift": True}}, 0),
        (1, {"lines": [{"n": 2}, {"n": 3}]}, 1),
        (1, {"lines": [{"n": 3}, {"n": 2}]}, 0),
        (1, {"points": [1.5, 2.0]}, 1),
        (1, {"points": [2, 1.5]}, 0),
        (1, {"tags": ["a"]}, 0),
        (1, {"tags": None}, 0),
        (1, {"extra": None}, 1),
        (1, {"extra": "none"}, 1),
        (1, {"type": "Web"}, 1),
    ],
)
def test_what_is_accepted(task, data, doc_id, changes, exact):
    """``changes`` are laid over a right call; None takes an argument away."""

    def answer(row):
        ((call,),) = (row["gold"]["calls"],)
        arguments = {**call["arguments"], **changes}
        return calling([(call["name"], {n: v for n, v in arguments.items() if v is not None})])

    (made,) = scores(task, data, answer, [doc_id])
    assert made.metrics["none"]["exact"] == exact


def test_without_answers_irrelevance_wants_no_call_and_relevance_any(tmp_path):
    for kind, never in (("irrelevance", 1), ("live_irrelevance", 1), ("live_relevance", 0)):
        task = spec(f"bfcl_{kind}", write(tmp_path / kind, [question("0-0-0", AREA, kind=kind)], None))
        data = Tools().register(task).data
        assert means(scores(task, data, silent, [0]))["triggered"] == never
        assert ("exact" in data.flags.metrics) is (kind != "live_relevance")


def test_questions_without_functions_are_asked_without_tools(tmp_path):
    asked = [question("0-0-0", kind="live_irrelevance"), question("1-0-0", AREA, kind="live_irrelevance")]
    task = spec("bfcl", write(tmp_path / "bfcl", asked, None))
    prompts = Tools().build_prompts(task, Tools().register(task).data, [0, 1], "chat", "s")
    assert ["tools" in prompt.requests[0] for prompt in prompts] == [False, True]


@pytest.mark.parametrize(
    ("questions", "answers", "message"),
    [
        (QUESTIONS, None, "row 1: there is no answer to simple_python_0; add the file .* as answers: <file>"),
        (QUESTIONS, ANSWERS[:1], "row 2: there is no answer to simple_python_1"),
        (
            [{**QUESTIONS[0], "question": QUESTIONS[0]["question"] * 2}],
            ANSWERS,
            "row 1: simple_python_0 has 2 turns; only questions of one",
        ),
        (
            [question(0, function("f", {"a": {"type": "ArrayList"}}))],
            ANSWERS,
            "row 1: 'ArrayList' is no type",
        ),
        ([question(0, function("f", "nonsense"))], ANSWERS, "row 1: is no question of BFCL with one turn"),
        ([{**QUESTIONS[0], "question": 5}], ANSWERS, "row 1: is no question of BFCL"),
        (QUESTIONS, [truth(0, {"other": {}}), ANSWERS[1]], "row 1: is no question of BFCL .*KeyError"),
        (
            [question(0, function("f", {"a": {"type": "dict"}}))],
            [truth(0, {"f": {"a": [{str(n): [1, 2, 3, 4] for n in range(20)}]}})],
            "row 1: simple_python_0: 'a' may have more than 1024 values",
        ),
        (
            [question(0, function("f", {"a": {"type": "dict"}}))],
            [truth(0, {"f": {"a": [{"in": [{str(n): [1, 2, 3, 4] for n in range(20)}]}]}})],
            "row 1: simple_python_0: 'a' may have more than 1024 values",
        ),
    ],
)
def test_what_is_not_asked_here_is_refused_with_its_row(tmp_path, questions, answers, message):
    with pytest.raises(TaskError, match=r"BFCL_v4_simple_python\.json: " + message):
        Tools().register(spec("bfcl", write(tmp_path / "bfcl", questions, answers)))
