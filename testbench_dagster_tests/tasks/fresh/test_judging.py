"""Own answers are right, nonsense is not, and no answer does anything."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.core.prompt import Answered, BuiltPrompt
from testbench_dagster.tasks.fresh import adapter as adapter_module
from testbench_dagster.tasks.fresh import items, judge
from testbench_dagster.tasks.fresh.adapter import Fresh
from testbench_dagster.tasks.fresh.generators import EXECUTE_ANSWERS, GENERATORS, OWN_CHECK
from testbench_dagster.tasks.fresh.judge import Judge, JudgeFailed
from testbench_dagster.tasks.fresh.judge_child import is_right
from testbench_dagster.testing import check_framework
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.tasks.fresh.drawing import (
    ITEMS,
    correct,
    needs_package,
    needs_sandbox,
    prompts,
    scores,
    spec,
    tagged,
)
from testbench_dagster_tests.tasks.layouts import REPOSITORY

pytestmark = needs_package


@pytest.fixture(scope="module")
def adapter() -> Iterator[Fresh]:
    made = Fresh()
    yield made
    made._judge.close()


@pytest.fixture(scope="module")
def asked(adapter: Fresh) -> dict[str, list[BuiltPrompt]]:
    """Prompts of the 160 items, by generator."""
    return {
        generator: prompts(adapter, generator, [number for name, number in ITEMS if name == generator])
        for generator in GENERATORS
    }


def right_of(adapter, asked, reply) -> int:
    return sum(
        correct(score) == 1
        for generator, of_generator in asked.items()
        for score in scores(adapter, generator, of_generator, reply)
    )


def test_own_answers_are_right(adapter, asked) -> None:
    assert right_of(adapter, asked, lambda p: f"So it is <answer>{p.target}</answer>.") == 160


def test_a_supplier_is_sent_the_question_and_nothing_that_tells_its_answer(asked) -> None:
    seeds = set()
    for of_generator in asked.values():
        for prompt in of_generator:
            body = build_payload(prompt.requests[0], "chat", "model")[1]
            assert set(body) <= {"model", "messages", "max_tokens", "temperature", "stop", "seed"}
            seeds.add(body["seed"])
            assert body["messages"] == prompt.requests[0]["messages"]
            assert str(prompt.requests[0]["item_seed"]) not in json.dumps(body)
    assert len(seeds) == 1, "that of sampling, the same for all"


def test_their_checks_take_own_answers_for_right(asked) -> None:
    """Though ours never asks them for it."""
    for generator, of_generator in asked.items():
        for prompt in of_generator:
            seed = prompt.requests[0]["item_seed"]
            assert is_right(generator, seed, prompt.target, prompt.target)
            assert not is_right(generator, seed, f"{prompt.target}?", prompt.target), "another item"


#: Kinds of answers without sense; none may be right, whichever generator it is.
NONSENSE = {
    "nothing": lambda p: "<answer></answer>",
    "words": lambda p: "<answer>I do not know</answer>",
    "no number": lambda p: "<answer>nan</answer>",
    "the question": lambda p: f"<answer>{p.requests[0]['question'][:900]}</answer>",
    "the answer and more": lambda p: f"<answer>The answer is {p.target}, or something else.</answer>",
    "the answer or not": lambda p: f"<answer>{p.target} or {p.target[::-1]}x</answer>",
    "no pair": lambda p: f"The answer is {p.target}.",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_never_right(adapter, asked, kind) -> None:
    """Slow: a process is forked and confined for most of them."""
    assert right_of(adapter, asked, NONSENSE[kind]) == 0


@pytest.mark.slow(minutes=1)
@needs_sandbox
def test_a_lot_of_nonsense_is_right_only_by_chance(adapter, asked) -> None:
    """Short answers to items whose answer they are not, and what checks of the package were too kind to."""
    short = ["0", "1", "inf", "-inf", "1e999999999", "1/0", "[]", "None", "()", "0.0", "×", ",", "a"]
    for generator, of_generator in asked.items():
        for text in short:
            replies = scores(adapter, generator, of_generator, tagged(text))
            for prompt, score in zip(of_generator, replies, strict=True):
                if correct(score):
                    assert float(text) == float(prompt.target.split()[0]), (generator, text)
    for generator, more in (("word_sorting", "{}, zzz"), ("spell_backward", "{}x")):
        assert not any(map(correct, scores(adapter, generator, asked[generator], tagged(more))))


@needs_sandbox
@pytest.mark.parametrize(
    ("generator", "written"),
    [
        ("chain_sum", lambda gold: f"{gold}.00"),
        ("decimal_chain_sum", lambda gold: f"{gold}00"),
        ("products", lambda gold: f"{int(gold):,}"),
        ("prime_factorization", lambda gold: "×".join(reversed(gold.split(" × ")))),
        ("bitwise_arithmetic", lambda gold: str(int(gold, 16))),
        ("knights_knaves", lambda gold: gold.rstrip(".").replace(", and", " and")),
        ("coin_flip", lambda gold: gold[:-1] + "49"),
        ("fraction_simplification", lambda gold: "/".join(re.findall(r"\d+", gold))),
        ("time_intervals", lambda gold: f"+{gold}"),
        ("word_sorting", lambda gold: gold.replace(", ", ",")),
    ],
)
def test_other_forms_that_checks_know_are_right(adapter, asked, generator, written) -> None:
    prompt = max(asked[generator], key=lambda one: len(one.target))
    text = written(prompt.target)
    assert text != prompt.target
    [score] = scores(adapter, generator, [prompt], tagged(text))
    assert correct(score) == 1
    assert score.extracted == {"last": text}


def test_without_a_sandbox_equality_decides_alone(monkeypatch) -> None:
    monkeypatch.setattr(adapter_module, "why_none", lambda: "no Landlock here")
    alone = Fresh()
    asked = prompts(alone, "bitwise_arithmetic", [0, 1])
    assert all(map(correct, scores(alone, "bitwise_arithmetic", asked, tagged("{}"))))
    decimal = {p.doc_id: f"<answer>{int(p.target, 16)}</answer>" for p in asked}
    assert not any(map(correct, scores(alone, "bitwise_arithmetic", asked, lambda p: decimal[p.doc_id])))
    assert alone._judge._process is None
    there, here = Fresh.__new__(Fresh), alone.register(spec("fresh_gcd"))
    there._asks_checks = True
    other = there.register(spec("fresh_gcd"))
    assert (here.task_hash, here.config_hash == other.config_hash) == (other.task_hash, False)


# ------------------------------------------------------------------------------------------- hostile


def hostile(canary: Path) -> str:
    """Text that writes a file where it is handed to Python's eval or to sympy's parser."""
    return f"open({str(canary)!r}, 'w').write('x')"


THEIR_CHECKS = """
import json, sys, reasoning_gym
for generator, text in json.loads(sys.argv[1]).items():
    data = reasoning_gym.create_dataset(generator, seed=1, size=1)
    try: data.score_answer(text, data[0])
    except Exception: pass
"""


@pytest.fixture(scope="module")
def written_by_theirs(tmp_path_factory) -> dict[str, Path]:
    """By generator the file that a text would write through the package's check: one process asks all."""
    folder = tmp_path_factory.mktemp("theirs")
    files = {generator: folder / generator for generator in EXECUTE_ANSWERS}
    texts = json.dumps({generator: hostile(file) for generator, file in files.items()})
    subprocess.run([sys.executable, "-c", THEIR_CHECKS, texts], check=True)
    return files


@pytest.fixture(scope="module")
def judged() -> Iterator[Judge]:
    """A judge that is asked past what is refused before it; whatever it is asked, it goes on."""
    with contextlib.closing(Judge()) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("generator", EXECUTE_ANSWERS)
def test_canaries_of_the_nine(written_by_theirs, judged, tmp_path, generator) -> None:
    """The text does write a file through the check of each of the nine, and none through ours."""
    assert written_by_theirs[generator].exists(), "it is no canary"
    canary = tmp_path / "canary"
    with pytest.raises(ValueError, match="not on the list"):
        items.made(generator, 1)
    assert not is_right(generator, 1, "x", hostile(canary))
    assert not judged.is_right(generator, 1, "x", hostile(canary))
    assert not canary.exists()


@pytest.mark.slow
def test_no_canary_is_written_through_a_check_of_ours(adapter, asked, tmp_path) -> None:
    canary = tmp_path / "canary"
    texts = [hostile(canary), f"[{hostile(canary)}]", f"5 if {hostile(canary)} else 5"]
    for name, of_name in asked.items():
        for text in texts:
            assert not any(map(correct, scores(adapter, name, of_name[:1], tagged(text))))
    assert not canary.exists()


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize(
    ("generator", "text"),
    [
        ("coin_flip", "1e999999999"),
        ("coin_flip", "9**9**9**9"),
        ("prime_factorization", "×".join(["9" * 400] * 2)),
        ("chain_sum", "9E+999999999999999999"),
        ("knights_knaves", " and ".join(["is"] * 300)),
        ("decimal_chain_sum", "1" * 990),
    ],
)
def test_bombs_end_and_the_next_answer_is_judged(judged, generator, text) -> None:
    """Asked of the check itself, past what is refused before it."""
    began = time.monotonic()
    assert not judged.is_right(generator, 1, items.made(generator, 1)[1]["answer"], text)
    assert time.monotonic() - began < 60
    gold = items.made("chain_sum", 2)[1]["answer"]
    assert judged.is_right("chain_sum", 2, gold, f"{gold}.0")


@needs_sandbox
@pytest.mark.parametrize(
    "attack",
    [
        "__import__('pathlib').Path({canary!r}).write_text('x')",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('os').fork()",
        "__import__('socket').socket()",
        "open('/etc/passwd').read()",
        "open({secret!r}).read()",
        "__import__('os').listdir({folder!r})",
        "__import__('os').execv('/bin/sh', ['sh', '-c', 'touch {canary}'])",
    ],
)
def test_the_fork_in_which_a_check_runs_can_do_nothing(tmp_path, attack) -> None:
    """As if one of the thirty executed answers: its check is replaced by eval, in the child itself."""
    canary = tmp_path / "canary"
    code = """
import json, sys
from testbench_dagster.tasks.fresh import judge_child
class Evil:
    def score_answer(self, text, entry):
        try: eval(text)
        except PermissionError: return 0.0
        return 1.0
judge_child.made = lambda generator, seed: (Evil(), {"answer": "gold"})
judge_child.main()
"""
    line = '{{"generator": "gcd", "seed": 1, "gold": "gold", "found": {}}}\n'
    secret = tmp_path / "testbench.yaml"
    secret.write_text("it lies where the process was started")
    text = attack.format(canary=str(canary), secret=str(secret), folder=str(REPOSITORY))
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=line.format(json.dumps(text)) + line.format(json.dumps("1 + 1")),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        cwd=tmp_path,
    )
    said = [json.loads(one) for one in done.stdout.splitlines()]
    assert said[1:] == [{"right": False}, {"right": True}], done.stderr
    assert not canary.exists()


@needs_sandbox
@pytest.mark.slow
def test_a_child_that_ends_costs_one_answer(adapter, asked) -> None:
    [prompt] = asked["bitwise_arithmetic"][:1]
    text = str(int(prompt.target, 16))
    reply = tagged(text)
    [score] = scores(adapter, "bitwise_arithmetic", [prompt], reply)
    assert correct(score) == 1
    adapter._judge._process.kill()
    adapter._judge._process.wait()
    [score] = scores(adapter, "bitwise_arithmetic", [prompt], reply)
    assert correct(score) == 1, "a new one is started"


def test_a_judge_that_does_not_start_leaves_answers_unscored(asked, monkeypatch) -> None:
    broken = Fresh()
    broken._asks_checks = True
    monkeypatch.setattr(judge.sys, "executable", "/nowhere/python")
    [score] = scores(broken, "chain_sum", asked["chain_sum"][:1], lambda p: "<answer>1.5</answer>")
    assert score.unavailable and "the process that runs checks: FileNotFoundError" in score.error
    with pytest.raises(JudgeFailed):
        Judge().is_right("chain_sum", 1, "1", "2")


def test_answers_that_no_check_need_see(adapter, asked) -> None:
    """Longer than any answer, or of a generator whose check is equality."""
    for generator in GENERATORS:
        [score] = scores(adapter, generator, asked[generator][:1], lambda p: f"<answer>{'9' * 1001}</answer>")
        assert correct(score) == 0
    assert not OWN_CHECK & {"gcd", "aiw"}


def test_a_forged_seed_gives_no_check(adapter, asked) -> None:
    """Of a bundle by somebody else: the item is drawn again, and is another one."""
    prompt = asked["bitwise_arithmetic"][0]
    text = str(int(prompt.target, 16))
    for forged in (prompt.requests[0]["item_seed"] + 1, "x", None, True, [1]):
        request = {**prompt.requests[0], "item_seed": forged}
        task = spec("fresh_bitwise_arithmetic")
        answer = Answered(prompt.doc_id, [request], [[f"<answer>{text}</answer>"]], prompt.target)
        [score] = adapter.score(task, adapter.register(task).data, [answer])
        assert correct(score) == 0
    for target in (None, 5, ["x"]):
        answer = Answered(prompt.doc_id, prompt.requests, [[f"<answer>{text}</answer>"]], target)
        [score] = adapter.score(task, adapter.register(task).data, [answer])
        assert "the prompt's target is no text" in score.error


@pytest.mark.slow
def test_it_is_a_framework_as_they_should_be() -> None:
    oracle = lambda prompt, request: f"<answer>{prompt.target}</answer>"  # noqa: E731
    findings = check_framework("fresh", oracle=oracle, most_docs=4)
    assert [str(finding) for finding in findings if not finding.ok] == []
    assert len(findings) > 150
