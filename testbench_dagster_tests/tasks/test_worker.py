"""The child process that owns lm-eval: results, failures, timeouts, and its end."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.prompt import Answered
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks import worker as worker_module
from testbench_dagster.tasks.lm_eval_adapter import build_prompts, register
from testbench_dagster.tasks.worker import FrameworkWorker, WorkerTimeout, cpu_seconds
from testbench_dagster_tests.tasks.quiz import HELPER, quiz, spec_of
from testbench_dagster_tests.tasks.test_scoring import CHECKED

SPEC = spec_of("starter_logic")
STUBBORN = HELPER + (
    "import os, re, sys, time\n"
    "def check(doc, results):\n"
    "    print('noise on stdout'); sys.stderr.write('noise on stderr' * 1000)\n"
    "    sys.stdout.flush(); os.write(1, b'raw' * 100); os.system('echo from a child; cat')\n"
    "    if 'backtrack' in results[0]:\n"
    "        re.match(r'(a+)+$', 'a' * 60 + 'b')\n"
    "    if 'wait' in results[0]:\n"
    "        time.sleep(1.5)\n"
    "    if 'exit' in results[0]:\n"
    "        sys.stderr.write('\\nthe last words'); sys.stderr.flush(); os._exit(7)\n"
    "    return {'right': 1.0}\n"
)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


@pytest.fixture(scope="module")
def worker():
    with FrameworkWorker() as shared:
        yield shared


@pytest.fixture
def stubborn(tmp_path):
    spec = quiz(tmp_path, CHECKED, STUBBORN)
    data = register(spec).data
    (prompt,) = build_prompts(spec, data, [0], "completions")

    def answers(text: str):
        return spec, data, [Answered(0, prompt.requests, [[text]])]

    return answers


def test_results_are_those_of_a_call_in_this_process(worker):
    registered = worker.call("lm_eval", "register", SPEC)
    assert registered == register(SPEC)
    prompts = worker.call("lm_eval", "build_prompts", SPEC, registered.data, [4, 1], "chat", "")
    assert prompts == build_prompts(SPEC, registered.data, [1, 4], "chat")


def test_exceptions_come_back_as_task_errors_and_the_child_lives_on(worker):
    worker.call("lm_eval", "register", SPEC)
    pid = worker.process("lm_eval").pid
    with pytest.raises(TaskError, match="unknown task 'nope_nope'"):
        worker.call("lm_eval", "register", spec_of("nope_nope", root="nope_nope"))
    with pytest.raises(TaskError, match=r"build_prompts failed: IndexError: 10000"):
        worker.call("lm_eval", "build_prompts", SPEC, register(SPEC).data, [10_000], "chat", "")
    with pytest.raises(TaskError, match=r"register failed: TypeError"):
        worker.call("lm_eval", "register")
    assert worker.call("lm_eval", "register", SPEC).data.docs and worker.process("lm_eval").pid == pid


def test_only_the_adapters_functions_can_be_called(worker):
    with pytest.raises(ValueError, match="'eval' is none of register, identify, build_prompts, "):
        worker.call("lm_eval", "eval", "1")


def test_what_task_code_prints_does_not_reach_the_pipe(worker, stubborn):
    (result,) = worker.call("lm_eval", "score", *stubborn("fine"))
    assert result.metrics == {"none": {"right": 1.0}}


def test_a_hanging_check_is_killed_and_the_next_call_works(worker, stubborn):
    worker.call("lm_eval", "register", SPEC)
    pid = worker.process("lm_eval").pid
    with pytest.raises(WorkerTimeout, match="score took longer than 2 s and was stopped"):
        worker.call("lm_eval", "score", *stubborn("backtrack"), timeout_s=2)
    assert not alive(pid)
    (result,) = worker.call("lm_eval", "score", *stubborn("fine"))
    assert result.metrics and worker.process("lm_eval").pid != pid


@pytest.mark.slow
def test_limits_are_of_cpu_time(worker, stubborn, monkeypatch):
    """What waits, for others on a busy machine say, is stopped much later than what works."""
    worker.call("lm_eval", "score", *stubborn("fine"))
    (result,) = worker.call("lm_eval", "score", *stubborn("wait"), timeout_s=1)
    assert result.metrics == {"none": {"right": 1.0}}
    monkeypatch.setattr(worker_module, "_WAITING", 1.0)
    with pytest.raises(WorkerTimeout):
        worker.call("lm_eval", "score", *stubborn("wait"), timeout_s=1)
    worker.call("lm_eval", "score", *stubborn("fine"))
    monkeypatch.setattr(worker_module, "cpu_seconds", lambda pid: None)
    with pytest.raises(WorkerTimeout):
        worker.call("lm_eval", "score", *stubborn("wait"), timeout_s=1)


def test_cpu_times_are_those_of_the_process():
    before = cpu_seconds(os.getpid())
    used = sum(os.times()[:4])
    assert before is not None and before == pytest.approx(used, abs=0.2)
    assert cpu_seconds(2**22 + 1) is None


def test_a_child_that_dies_is_one_error_with_its_last_words(worker, stubborn):
    with pytest.raises(TaskError, match=r"ended \(exit code 7\) during score: the last words"):
        worker.call("lm_eval", "score", *stubborn("exit"))
    assert worker.call("lm_eval", "score", *stubborn("fine"))[0].error is None


def test_a_child_killed_between_calls_is_replaced(worker):
    worker.call("lm_eval", "register", SPEC)
    os.kill(worker.process("lm_eval").pid, signal.SIGKILL)
    worker.process("lm_eval")._process.wait()
    assert worker.call("lm_eval", "register", SPEC) == register(SPEC)


def test_threads_share_one_child_without_mixing_answers(worker):
    specs = [
        spec_of(name) for name in ("starter_logic", "starter_units", "starter_strings", "starter_calendar")
    ]
    expected = {spec.name: register(spec).task_hash for spec in specs}
    found: list[tuple[str, str]] = []

    def ask(spec):
        for _ in range(3):
            found.append((spec.name, worker.call("lm_eval", "register", spec).task_hash))

    threads = [threading.Thread(target=ask, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 12 and set(found) == set(expected.items())


def test_close_ends_the_child_and_may_be_repeated():
    worker = FrameworkWorker()
    worker.close()
    worker.call("lm_eval", "register", SPEC)
    pid = worker.process("lm_eval").pid
    worker.close()
    assert not alive(pid)
    worker.close()


def test_the_parent_stays_light_and_its_death_ends_the_child():
    code = inspect.cleandoc(f"""
        import sys, time
        from testbench_dagster.core.applicability import Applicability
        from testbench_dagster.core.rules import PlanningRule
        from testbench_dagster.tasks.specs import TaskSpec
        from testbench_dagster.tasks.worker import FrameworkWorker
        worker = FrameworkWorker()
        registered = worker.call("lm_eval", "register", {SPEC!r})
        assert len(registered.data.docs) > 10
        heavy = {{"lm_eval", "datasets", "pandas", "torch", "jinja2.sandbox"}} & set(sys.modules)
        print(worker.process("lm_eval").pid, sorted(heavy), flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid, _, heavy = parent.stdout.readline().partition(" ")
        assert heavy.strip() == "[]"
        assert alive(int(pid))
    finally:
        parent.kill()  # no chance to clean up
        parent.wait()
    assert gone_within(int(pid), 10)


def test_the_child_gets_no_secret_the_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks bring code of their own: keys are none of its business."""
    path = tmp_path / "testbench.yaml"
    app = "pokt1mrqt5f7qh8uxs27cjm9t7v9e74a9vvdnq5jva4"
    path.write_text(
        yaml.safe_dump(
            {
                "suppliers": [
                    {
                        "address": "a",
                        "base_url": "http://127.0.0.1:9/v1",
                        "model": "m",
                        "api_key_env": "KEY_OF_A",
                    }
                ],
                "services": {
                    "s": {
                        "transport": "shannon",
                        "model": "m",
                        "nodes": {"rest": ["http://127.0.0.1:9"]},
                        "apps": [{"address": app, "key_env": "KEY_OF_APP"}],
                    }
                },
                "tasks": [{"name": "starter_units"}],
            }
        ),
        encoding="utf-8",
    )
    secret = ("KEY_OF_A", "KEY_OF_APP", "TESTBENCH_POSTGRES_URI")
    for name in (*secret, "OF_NO_INTEREST"):
        monkeypatch.setenv(name, "postgresql://user:password@host/base")
    with Workspace.open(path) as workspace:
        pid = workspace.worker.process("lm_eval")._started().pid
        until, given = time.monotonic() + 10, [b""]
        while given == [b""] and time.monotonic() < until:  # before it is loaded it has none to show
            given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0].decode() for entry in given}
    assert "OF_NO_INTEREST" in names and not names & set(secret)
