"""Stock lm-eval loads and scores the catalog: right answers score 1, nonsense scores 0 or chance."""

import pytest

from testbench_dagster.tasks.starter import CHOICE_TASK, FOLDER, TASKS
from testbench_dagster.tasks.starter.loader import read_docs

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

STYLES = ("{}", " {}.", "The answer is {}.", "Step by step: no 1, yes 2. So it is **{}**.")


class Scripted(LM):
    """Answers from the docs themselves; ``style`` wraps short answers as chatty models do."""

    def __init__(self, field, style="{}"):
        super().__init__()
        self.field, self.style = field, style

    def generate_until(self, requests):
        return [self._answer(request.task_name, request.doc) for request in requests]

    def _answer(self, task, doc):
        if self.field == "nonsense":
            return "Wibble, wobble, I, like, Turtles"
        answer = doc["answer"] if self.field == "answer" else doc["wrong"][-1]
        return answer if task == "starter_instructions" else self.style.format(answer)

    def loglikelihood(self, requests):
        return [self._likelihood(request) for request in requests]

    def _likelihood(self, request):
        continuation = request.args[1].strip()
        if self.field == "nonsense":
            return (-float(len(continuation)), False)
        best = request.doc["answer"] if self.field == "answer" else request.doc["wrong"][0]
        return (-1.0 if continuation == best else -9.0 - len(continuation) * 3, False)

    def loglikelihood_rolling(self, requests):
        raise AssertionError("no task of the catalog asks for this")


@pytest.fixture(scope="module")
def manager():
    return TaskManager(include_defaults=False, include_path=str(FOLDER))


def evaluate(manager, lm, tasks=("starter_all",), limit=None):
    results = lm_eval.simple_evaluate(
        lm, tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
    )
    scores = {}
    for task, metrics in results["results"].items():
        named = {k: v for k, v in metrics.items() if "," in k and "_stderr" not in k}
        if named:
            scores[task] = named
    return scores, results


def test_index_lists_exactly_the_catalogue(manager):
    assert set(TASKS) | {"starter", "starter_all"} == set(manager.all_tasks)


def test_oracle_scores_one_everywhere(manager):
    scores, results = evaluate(manager, Scripted("answer"))
    assert set(TASKS) <= set(scores)
    assert all(value == 1.0 for task in TASKS for value in scores[task].values()), scores
    assert {results["versions"][task] for task in TASKS} == {1.0}
    assert {results["n-shot"][task] for task in TASKS} == {2}


@pytest.mark.parametrize("style", STYLES[1:])
def test_extraction_survives_natural_answers(manager, style):
    scores, _ = evaluate(manager, Scripted("answer", style), [t for t in TASKS if t != CHOICE_TASK], 70)
    assert all(value == 1.0 for task in scores for value in scores[task].values()), scores


def test_plausible_wrong_answers_score_zero(manager):
    scores, _ = evaluate(manager, Scripted("wrong", "The answer is {}."), limit=100)
    for task in TASKS:
        if task != CHOICE_TASK:
            assert set(scores[task].values()) == {0.0}, (task, scores[task])
    assert scores[CHOICE_TASK]["acc,none"] == 0.0


def test_nonsense_scores_zero_or_chance(manager):
    scores, _ = evaluate(manager, Scripted("nonsense"), limit=100)
    for task in TASKS:
        if task == CHOICE_TASK:
            assert scores[task]["acc,none"] < 0.45
        else:
            # a rule such as "no letter t" may be met by chance
            assert max(scores[task].values()) <= 0.02, (task, scores[task])


def test_prompt_holds_shots_then_the_question(manager):
    _, results = evaluate(manager, Scripted("answer"), ["starter_reading"], 3)
    sample = results["samples"]["starter_reading"][0]
    prompt = sample["arguments"][0][0]
    assert prompt.endswith(f"Question: {sample['doc']['question']}\nAnswer:")
    shots = [doc for doc in read_docs("starter_reading", "train") if doc["question"] in prompt]
    assert len(shots) == 2
