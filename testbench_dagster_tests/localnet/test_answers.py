"""Recognition of questions, decisions by seed, and answers that lm-eval scores as decided."""

import gzip
import json

import pytest

from testbench_dagster.localnet.answers import (
    Answers,
    is_right,
    read_recorded,
    starter_index,
    starter_questions,
)
from testbench_dagster.localnet.logprobs import loglikelihood
from testbench_dagster.localnet.personas import STYLES, Backend
from testbench_dagster.localnet.questions import Known, QuestionIndex
from testbench_dagster.tasks.starter import CHOICE_TASK, FOLDER, TASKS
from testbench_dagster.tasks.starter.loader import read_docs


def index(*texts):
    return QuestionIndex([Known(text, recorded=text) for text in texts])


def test_every_starter_question_is_recognised_behind_others():
    questions = starter_questions()
    assert len(starter_index()) == len(questions) == len(TASKS) * 264
    for number, question in enumerate(questions):
        shot = questions[number - 1]
        before = f"Instructions.\n\nQuestion: {shot.text}\nAnswer: {shot.answer}"
        prompt = f"{before}\n\nQuestion: {question.text}\nAnswer:"
        assert starter_index().find(prompt) == question


def test_last_ending_wins_then_the_longest():
    found = index("one two?", "two?", "three?").find
    assert found("one two? three? and nothing").text == "three?"
    assert found("three? one two?").text == "one two?"
    assert found("three? 1 two?").text == "two?"
    assert found("one  \n two?").text == "one two?"
    assert found("nothing here?") is None
    assert found("") is None


def test_index_keeps_the_first_of_equal_questions_and_drops_empty_ones():
    twice = QuestionIndex([Known("q?", recorded="first"), Known(" q? ", recorded="second"), Known("  ")])
    assert len(twice) == 1
    assert twice.find("q?").recorded == "first"


def test_answers_repeat_and_differ_between_backends_seeds_and_variants():
    prompts = [f"Question: {doc['question']}\nAnswer:" for doc in read_docs("starter_units", "test")]
    answers, one, other = Answers(seed=1), Backend("one", 0.5), Backend("other", 0.5)

    def say(*args, source=answers):
        return [source.reply(args[0], prompt, *args[1:]) for prompt in prompts]

    assert say(one) == say(one) == say(one, source=Answers(seed=1))
    assert say(one) != say(other)
    assert say(one) != say(one, source=Answers(seed=2))
    assert say(one) != say(one, "7") == say(one, "7")


def test_accuracy_is_met_per_task():
    backend = Backend("b", 0.7, {"starter_logic": 0.2})
    for task, share in (("starter_units", 0.7), ("starter_logic", 0.2)):
        known = [question for question in starter_questions() if question.task == task]
        rate = sum(is_right(0, backend, question) for question in known) / len(known)
        assert abs(rate - share) < 0.09


def test_unknown_prompts_get_a_fixed_text_of_the_backend():
    answers = Answers()
    texts = {answers.reply(Backend(name), prompt) for name in "ab" for prompt in ("x", "y") for _ in range(2)}
    assert len(texts) == 4
    assert not any(letter.isdigit() for text in texts for letter in text)


def test_recorded_answers_come_first_and_verbatim(tmp_path):
    question = read_docs("starter_logic")[0]["question"]
    rows = [{"match": question, "response": "recorded {}"}, {"match": "new?", "response": "yes"}]
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as out:
        out.write("\n".join(map(json.dumps, rows)) + "\n\n")
    answers = Answers(0, read_recorded(path))
    assert answers.reply(Backend("a"), f"Q: {question} A:") == "recorded {}"
    assert answers.reply(Backend("b"), "so, new?") == "yes"
    other = read_docs("starter_logic")[1]
    assert other["answer"] in answers.reply(Backend("c", 1.0), other["question"])


@pytest.mark.parametrize("line", ["[1]", "{", '{"match": "a"}', '{"match": 1, "response": "b"}'])
def test_bad_recorded_rows_name_file_and_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"match": "a", "response": "b"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:2"):
        read_recorded(path)


@pytest.mark.parametrize("style", STYLES)
def test_lm_eval_scores_every_answer_as_decided(style):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    backend, answers = Backend(f"half-{style}", 0.5, style=style), Answers(seed=3)

    class Simulated(LM):
        def generate_until(self, requests):
            return [answers.reply(backend, request.args[0]) for request in requests]

        def loglikelihood(self, requests):
            return [loglikelihood(3, backend, *request.args) for request in requests]

        def loglikelihood_rolling(self, requests):
            raise AssertionError

    results = lm_eval.simple_evaluate(
        Simulated(),
        tasks=["starter_all"],
        task_manager=TaskManager(include_defaults=False, include_path=str(FOLDER)),
        limit=60,
        bootstrap_iters=0,
    )
    questions = {question.doc_id: question for question in starter_questions()}
    scored = set()
    for task in TASKS:
        metrics = ("acc", "acc_norm") if task == CHOICE_TASK else ("exact_match", "follows")
        for sample in results["samples"][task]:
            decided = float(is_right(3, backend, questions[sample["doc"]["id"]]))
            for metric in metrics:
                assert sample.get(metric, decided) == decided, (sample["doc"], sample["resps"])
            scored.add((task, decided))
    assert len(scored) == 2 * len(TASKS)
