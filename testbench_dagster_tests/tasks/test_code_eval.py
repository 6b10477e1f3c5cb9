"""lm-eval's code tasks: off unless allowed, run in the sandbox alone, judged as lm-eval judges them."""

from __future__ import annotations

import ast
import inspect
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lm_eval.tasks.cruxeval.utils as cruxeval
import numpy as np
import pytest

from testbench_dagster.core.errors import SandboxError, ScorerUnavailable, TaskError
from testbench_dagster.core.prompt import Answered, DocScore
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.sandbox.bubblewrap import Bubblewrap
from testbench_dagster.sandbox.choice import CodeSandbox
from testbench_dagster.sandbox.programs import USUAL, Limits, Ran
from testbench_dagster.stages.score.scorer import Scorer
from testbench_dagster.tasks.lm_eval_adapter import (
    build_prompts,
    code_eval,
    definitions,
    identify,
    register,
    score,
    score_empty,
    score_probes,
)
from testbench_dagster.tasks.lm_eval_adapter.code_eval import CODE_EVAL, CodeEval, pass_at, runs_itself
from testbench_dagster.tasks.verdicts import Reason, packaged
from testbench_dagster_tests.sandbox.sandboxes import started
from testbench_dagster_tests.tasks.layouts import DATA, shared_rows
from testbench_dagster_tests.tasks.quiz import jsonl, quiz, spec_of

HUMANEVAL = [
    {
        "task_id": f"Own/{number}",
        "prompt": f'def add_{number}(x):\n    """Add {number}."""\n',
        "entry_point": f"add_{number}",
        "canonical_solution": f"    return x + {number}\n",
        "test": f"\n\ndef check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }
    for number in range(4)
]
needs_data = pytest.mark.skipif(not (DATA / "code_math").is_dir(), reason=f"no {DATA / 'code_math'}")


class _Believed(Bubblewrap):
    """Other tests try it out, which takes seconds."""

    def probe(self) -> str | None:
        return None


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskSpec:
    """`humaneval` over rows of our own, where code may run."""
    started("bubblewrap")
    monkeypatch.setattr(CODE_EVAL, "sandbox", CodeSandbox([_Believed()]))
    data = {"test": jsonl(tmp_path / "test.jsonl", HUMANEVAL)}
    return spec_of("humaneval", data=data, code_execution=True)


def judged(spec: TaskSpec, texts: Sequence[str]) -> list[DocScore]:
    data = register(spec).data
    prompts = build_prompts(spec, data, range(len(texts)), "completions")
    answers = [Answered(p.doc_id, p.requests, [[t]]) for p, t in zip(prompts, texts, strict=True)]
    return score(spec, data, answers)


def test_answers_are_judged_in_the_sandbox_and_told_why_they_fail(
    allowed: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    found = judged(
        allowed,
        [
            "    return x + 0\n",
            "    return x\n",
            "    import os\n    os._exit(0)\n",
            "    return open('/etc/passwd').read()\n",
        ],
    )
    assert [one.metrics["create_test"]["pass@1"] for one in found] == [1.0, 0.0, 0.0, 0.0]
    assert [one.notes.get("create_test") for one in found] == [
        None,
        "the program raised an error (AssertionError)",
        "the program ended before its checks were through",
        "the program raised an error (FileNotFoundError: [Errno 2] No such file or directory: '/etc/passwd')",
    ]
    assert all(one.error is None and one.extracted["create_test"] for one in found)


def test_metrics_have_the_names_that_scores_have(allowed: TaskSpec) -> None:
    flags = register(allowed).data.flags
    assert {name: one.bounds for name, one in flags.metrics.items()} == {"pass@1": [0.0, 1.0]}
    with pytest.raises(TaskError, match="has no metric 'pass_at_k'; it has pass@1"):
        register(replace(allowed, metric="pass_at_k"))


def test_an_empty_answer_and_probes_run_as_well(allowed: TaskSpec) -> None:
    data = register(allowed).data
    [prompt] = build_prompts(allowed, data, [1], "completions")
    asked = Answered(1, prompt.requests, [["anything"]])
    assert score_empty(allowed, data, [asked])[0].metrics == {"create_test": {"pass@1": 0.0}}
    assert [one.unavailable for one in score_probes(allowed, data, asked)] == [False] * 3


def test_limits_are_part_of_what_a_score_says_it_was_made_by(
    allowed: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = register(allowed)
    assert identify(allowed, before.data, before.fingerprint) == (before.task_hash, before.config_hash)
    monkeypatch.setattr(code_eval, "LIMITS", Limits(cpu_s=USUAL.cpu_s + 1))
    after = register(allowed)
    assert after.task_hash == before.task_hash, "nothing is asked again"
    assert after.config_hash != before.config_hash


class _Broken:
    """A sandbox that held when it was tried, and cannot be started any more."""

    name = "broken"

    def probe(self) -> str | None:
        return None

    def run(self, program: str, limits: Limits = USUAL) -> Ran:
        raise SandboxError("fork: no resources")

    def judge(self, answer: str, checks: str, limits: Limits = USUAL) -> Ran:
        return self.run(answer)


def test_a_sandbox_that_does_not_start_is_no_answers_fault(
    allowed: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CODE_EVAL, "sandbox", CodeSandbox([_Broken()]))  # type: ignore[list-item]
    found = judged(allowed, [row["canonical_solution"] for row in HUMANEVAL])
    assert [one.unavailable for one in found] == [True] * 4
    assert found[0].error is not None and "fork: no resources" in found[0].error
    assert not found[-1].tried, "the rest is not tried in vain"


class _Near:
    """The framework in this process, as :class:`Scorer` calls it."""

    def score(self, spec: TaskSpec, data: Any, answers: Sequence[Answered], **_: Any) -> list[DocScore]:
        return score(spec, data, answers)

    def score_empty(self, spec: TaskSpec, data: Any, answers: Sequence[Answered], **_: Any) -> list[DocScore]:
        return score_empty(spec, data, answers)

    def score_probes(self, spec: TaskSpec, data: Any, asked: Answered, **_: Any) -> list[DocScore]:
        return score_probes(spec, data, asked)


def test_answers_wait_for_a_sandbox_and_are_scored_when_it_is_there(
    allowed: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = register(allowed).data
    prompts = build_prompts(allowed, data, range(4), "completions")
    items = [(p.doc_id, "s@x", Answered(p.doc_id, p.requests, [["    return 1\n"]])) for p in prompts]
    strikes: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        patch.setattr(CODE_EVAL, "sandbox", CodeSandbox([_Broken()]))  # type: ignore[list-item]
        scorer = Scorer(_Near(), allowed, data, strikes)  # type: ignore[arg-type]
        scorer.score(items)
    assert (scorer.found, scorer.open, sorted(scorer.waiting)) == ({}, {}, [0, 1, 2, 3])
    assert scorer.service.gone and "fork: no resources" in (scorer.service.reason or "")
    assert not strikes, "no supplier's fault"
    again = Scorer(_Near(), allowed, data, strikes)  # type: ignore[arg-type]
    again.score(items)
    values = [found.metrics["create_test"]["pass@1"] for found in again.found.values()]
    assert (values, again.waiting) == ([1.0, 0.0, 0.0, 0.0], [])


def test_helpers_that_take_it_for_a_failure_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """cruxeval's own catches whatever is raised, and counts it as wrong."""
    ours = CodeEval(CodeSandbox([_Broken()]))  # type: ignore[list-item]
    with pytest.raises(ScorerUnavailable):
        ours.check("assert True")
    with pytest.raises(ScorerUnavailable, match="fork"):
        ours.told()
    assert ours.told() == []


class _Leaky(_Broken):
    name = "leaky"

    def probe(self) -> str | None:
        return "a program in leaky could read accounts"


def test_a_sandbox_that_does_not_hold_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CODE_EVAL, "sandbox", CodeSandbox([_Leaky()]))  # type: ignore[list-item]
    data = {"test": jsonl(tmp_path / "test.jsonl", HUMANEVAL)}
    refused = "task 'humaneval': code that the model wrote runs in a sandbox .* leaky: .*could read accounts"
    with pytest.raises(TaskError, match=refused):
        register(spec_of("humaneval", data=data, code_execution=True))


OWN = """
task: quiz
dataset_path: tests/quiz
test_split: test
output_type: generate_until
unsafe_code: true
doc_to_text: "{{question}}"
doc_to_target: "assert f() == {{answer}}"
metric_list: [{metric: !function helper.passes, aggregation: mean, higher_is_better: true}]
"""
OWN_HELPER = """
import evaluate
code_eval = evaluate.load("code_eval")
def passes(references, predictions, **_):
    return code_eval.compute(references=references, predictions=[predictions], k=[1])[0]["pass@1"]
"""


def test_a_task_of_ones_own_calls_the_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started("bubblewrap")
    monkeypatch.setattr(CODE_EVAL, "sandbox", CodeSandbox([_Believed()]))
    spec = quiz(tmp_path, OWN, OWN_HELPER, code_execution=True)
    found = judged(spec, ["def f(): return 0", "def f(): return 0", "import os\nos._exit(0)"])
    assert [one.metrics["none"]["passes"] for one in found] == [1.0, 0.0, 0.0]
    with pytest.raises(TaskError, match="allow_code_execution is false"):
        register(replace(spec, code_execution=False))


@pytest.mark.parametrize(
    ("helper", "why"),
    [
        ("def passes(**_): return 1\n", "no helper of it calls code_eval"),
        (f"{OWN_HELPER}\ndef more(x): return eval(x)\n", r"helper.py calls eval\(\)"),
    ],
)
def test_one_that_does_not_is_refused(tmp_path: Path, helper: str, why: str) -> None:
    with pytest.raises(TaskError, match=f"means of its own, which no sandbox holds .{why}"):
        register(quiz(tmp_path, OWN, helper, code_execution=True))


@pytest.mark.slow
def test_which_of_lm_evals_tasks_can_be_confined() -> None:
    """All that say so, or call the metric, but longproc's, which compile and start programs themselves."""
    codes = [name for name, verdict in packaged().items() if verdict.as_is == Reason("runs_code")]
    refused = {}
    for name in codes:
        try:
            assert definitions.config_of(spec_of(name, code_execution=True))["unsafe_code"] is True
        except TaskError as error:
            refused[name] = str(error)
    assert {name.partition("_")[0] for name in codes} == {"humaneval", "mbpp", "cruxeval", "longproc"}
    assert {name for name in codes if name.startswith("longproc")} == set(refused)
    why = "means of its own, which no sandbox holds (metrics.py imports subprocess)"
    assert all(why in told for told in refused.values())


@pytest.mark.parametrize("name", ["humaneval", "mbpp_plus", "cruxeval_output"])
def test_what_may_be_confined_is_refused_where_it_is_not_allowed(name: str) -> None:
    spec = spec_of(name, code_execution=True)
    with pytest.raises(TaskError, match="allow_code_execution is false"):
        definitions.config_of(replace(spec, code_execution=False))


def test_code_copied_into_helpers_is_run_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    started("bubblewrap")
    config = definitions.config_of(spec_of("cruxeval_output", code_execution=True))
    [metric] = config["metric_list"]

    def own(*_: object) -> None:
        raise AssertionError("run in this process")

    monkeypatch.setitem(metric["metric"].__globals__, "unsafe_execute", own)
    programs = [["def f(x): return x\nassert f(1) == 1"], ["assert 1 == 2"], ["import os\nos._exit(0)"]]
    assert [metric["metric"](references=[""], predictions=[one])["pass@1"] for one in programs] == [1.0, 0, 0]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("exec(x)", "calls exec()"),
        ("def f(x):\n    return eval(x)", "calls eval()"),
        ("import subprocess", "imports subprocess"),
        ("from multiprocessing import Process", "imports multiprocessing"),
        ("import os\nos.system(x)", "calls os.system()"),
        ("import os\nos.execv(x, y)", "calls os.execv()"),
        ("def f(:", "cannot be read"),
        ("import os, re\ndef evaluate(x):\n    return os.path.join(x)", None),
    ],
)
def test_what_runs_code_by_itself(code: str, said: str | None) -> None:
    assert runs_itself(code) == said


def test_pass_at_k_is_the_estimate_of_the_paper() -> None:
    for n in (1, 2, 5, 64):
        for c in range(n + 1):
            for k in {1, 2, n} - set(range(n + 1, 3)):
                left = np.arange(n - c + 1, n + 1)
                exact = 1.0 if n - c < k else 1.0 - float(np.prod(1.0 - k / left))
                assert pass_at(n, c, k) == pytest.approx(exact, abs=1e-12)


class _Recorded:
    """Passes what says so, and counts."""

    name = "recorded"

    def __init__(self) -> None:
        self.ran: list[str] = []

    def probe(self) -> str | None:
        return None

    def run(self, program: str, limits: Limits = USUAL) -> Ran:
        raise AssertionError

    def judge(self, answer: str, checks: str, limits: Limits = USUAL) -> Ran:
        self.ran.append(answer)
        return Ran(exit=0, reason="done", passed=answer.startswith("right"))


def test_what_is_asked_for_ahead_runs_once() -> None:
    sandbox = _Recorded()
    ours = CodeEval(CodeSandbox([sandbox]))  # type: ignore[list-item]

    def ask() -> None:
        for answer in ("right", "wrong", "right"):
            assert ours.compute([[answer]], ["checks"], k=[1])[0] == {"pass@1": 0.0}

    with ours.ahead(ask):
        shares, results = ours.compute(
            [["right", "wrong"], ["right", "right too"]], ["checks"] * 2, k=[1, 2, 3]
        )
    assert sorted(sandbox.ran) == ["right", "right too", "wrong"]
    assert shares == {"pass@1": 0.75, "pass@2": 1.0}
    assert [[told["passed"] for _, told in found] for found in results.values()] == [
        [True, False],
        [True, True],
    ]


# ------------------------------------------------------------------------------------ as lm-eval judges


def of_lm_eval(programs: Sequence[str], seconds: float = 3.0) -> list[bool]:
    """lm-eval's own verdicts on whole programs, by its copy of `code_eval`, in a process of its own."""
    source = inspect.getsourcefile(cruxeval)
    code = (
        "import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('own', {source!r})\n"
        "own = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(own)\n"
        "own.multiprocessing.set_start_method('fork')\n"
        f"print(json.dumps([own.check_correctness(p, {seconds}) for p in json.load(sys.stdin)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(list(programs)),
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    verdicts: list[bool] = json.loads(done.stdout.splitlines()[-1])
    return verdicts


class _Change(ast.NodeTransformer):
    """Changes one thing of a program, the ``at``-th of those that can be changed."""

    def __init__(self, at: int) -> None:
        self.left = at

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        made: ast.AST | None = None
        if isinstance(node, ast.Compare):
            flipped = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq}
            if (other := flipped.get(type(node.ops[0]))) is not None:
                made = ast.Compare(node.left, [other(), *node.ops[1:]], node.comparators)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            made = ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            made = ast.Constant(node.value + 1)
        elif isinstance(node, ast.Return):
            made = ast.Return(ast.Constant(None))
        if made is None:
            return node
        self.left -= 1
        return ast.copy_location(made, node) if self.left == -1 else node


def changed(program: str, drawn: random.Random) -> str:
    """A program with one change that a model might have made, by chance."""
    counter = _Change(many := 10_000)
    counter.visit(ast.parse(program))
    change = _Change(drawn.randrange(many - counter.left))
    return ast.unparse(ast.fix_missing_locations(change.visit(ast.parse(program))))


def humaneval_program(row: dict[str, Any], solution: str) -> tuple[str, str]:
    return row["prompt"] + solution, f"{row['test']}\ncheck({row['entry_point']})"


def mbpp_program(row: dict[str, Any], solution: str) -> tuple[str, str]:
    return solution, "\n".join(row["test_list"])


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("task", ["humaneval", "mbpp"])
def test_verdicts_are_those_of_lm_eval(task: str) -> None:
    sandbox = started("bubblewrap")
    drawn = random.Random(7)
    programs = []
    for row in list(shared_rows(f"code_math/{task}.jsonl.gz"))[: 200 if task == "mbpp" else None]:
        if task == "humaneval":
            whole = humaneval_program(row, row["canonical_solution"])
        else:
            whole = mbpp_program(row, row["code"])
        programs += [whole, (changed(whole[0], drawn), whole[1])]
    ours = [sandbox.judge(*program).passed for program in programs]
    texts = ["\n".join(program) for program in programs]
    theirs = of_lm_eval(texts)
    # its 3 seconds are of the clock, which a busy machine makes shorter: where that may be, it gets more
    late = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a and not b]
    theirs = [b or (i in late and of_lm_eval([texts[i]], 30.0)[0]) for i, b in enumerate(theirs)]
    assert [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b] == []
    assert sum(ours[0::2]) == len(programs) // 2
    assert 5 < sum(ours[1::2]) < 0.5 * len(programs) // 2, "most changes are noticed, and not all"


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("task", "right"), [("humaneval", 164), ("mbpp", 972)])
def test_canonical_solutions_pass(task: str, right: int, tmp_path: Path) -> None:
    """Two of MBPP's need its set-up code, which lm-eval's task leaves out: its own verdict is the same."""
    started("bubblewrap")
    rows = shared_rows(f"code_math/{task}.jsonl.gz")
    spec = spec_of(task, data={"test": str(DATA / f"code_math/{task}.jsonl.gz")}, code_execution=True)
    found = judged(spec, [row.get("canonical_solution") or row["code"] for row in rows])
    values = [value for one in found for metrics in one.metrics.values() for value in metrics.values()]
    assert (len(values), sum(values)) == (len(rows), right)
    if task == "mbpp":
        failed = [one.doc_id for one in found if one.notes]
        assert all(rows[doc]["test_setup_code"] for doc in failed)
        assert (
            of_lm_eval(["\n".join(mbpp_program(rows[doc], rows[doc]["code"])) for doc in failed])
            == [False] * 2
        )
