"""Children of frameworks are handed on between tests only where each would have started the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbench_dagster.stages import workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests import children
from testbench_dagster_tests.children import Lent


@pytest.fixture(autouse=True)
def begun() -> None:
    children.begin()


def test_installations_use_one_after_another() -> None:
    assert workspace.FrameworkWorker is Lent
    with Lent() as first, Lent(frozenset({"A_KEY_THAT_IS_NOT_SET"})) as second:
        assert first.process("lm_eval") is second.process("lm_eval")
    assert Lent().process("lm_eval") is first.process("lm_eval"), "it is not ended by who used it"
    assert FrameworkWorker().process("lm_eval") is not first.process("lm_eval")


def test_who_would_start_another_has_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = Lent().process("lm_eval")
    assert Lent(hash_seed=1).process("lm_eval") is not kept
    with monkeypatch.context() as patch:
        patch.setenv("NLTK_DATA", str(tmp_path))
        assert Lent().process("lm_eval") is not kept
        assert Lent(everywhere=True).process("lm_eval") is kept
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert Lent().process("lm_eval") is not kept
    monkeypatch.setenv("TESTBENCH_A_KEY", "secret")
    assert Lent().process("lm_eval") is kept
    assert Lent(frozenset({"TESTBENCH_A_KEY"})).process("lm_eval") is not kept, "it may have seen the key"


def test_what_a_fixture_sets_for_the_rest_of_the_session_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Lent().process("lm_eval")
    monkeypatch.setenv("NLTK_DATA", "/elsewhere")
    passing = Lent()
    assert passing.process("lm_eval") is not kept
    following = Lent().process("lm_eval")
    assert following is not kept and Lent().process("lm_eval") is following
