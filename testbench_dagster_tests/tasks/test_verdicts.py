"""Verdicts on tasks: packaged ones are those that judging gives, and judging sees what is in the way."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path

import pytest

from testbench_dagster.tasks.index import PACKAGED_VERSION, Entry, TaskIndex
from testbench_dagster.tasks.lm_eval_adapter.judge_all import judge_entries, of_families
from testbench_dagster.tasks.lm_eval_adapter.judging import judge, likeness
from testbench_dagster.tasks.verdicts import REASONS, Verdict, packaged


@functools.cache
def index() -> TaskIndex:
    return TaskIndex.load()


def drawn(n: int) -> list[str]:
    """Some tasks, always the same, spread over the index."""
    return sorted(packaged(), key=lambda name: hashlib.sha256(f"reach:{name}".encode()).hexdigest())[:n]


def test_every_task_of_the_pinned_lm_eval_has_a_verdict() -> None:
    assert importlib.metadata.version("lm_eval") == PACKAGED_VERSION
    wanted = {entry.name for entry in index().entries.values() if entry.kind in ("task", "python")}
    assert packaged().keys() == wanted
    assert {r.code for v in packaged().values() for r in (v.as_is, v.chat) if r is not None} <= REASONS.keys()


def judged(names: list[str]) -> dict[str, Verdict]:
    """The verdicts on tasks, each by itself.

    Without the fingerprints of stand-in rows: they name cache files, which there are none of in memory, and
    hashing the rows of some thousand tries for them is half of the time.
    """
    found: dict[str, Verdict] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.arrow_dataset.generate_fingerprint", lambda _: "stand-in")
        for name in names:
            found |= judge_entries([index().entries[name]], [])
    return found


def test_judging_some_tasks_anew_gives_the_packaged_verdicts() -> None:
    names = ["hellaswag", "gsm8k", "winogrande", "truthfulqa_mc2", "wikitext", "humaneval", *drawn(3)]
    assert judged(names) == {name: packaged()[name] for name in names}


@pytest.mark.slow(minutes=1)
def test_judging_many_tasks_anew_gives_the_packaged_verdicts() -> None:
    names = drawn(120)
    found = judged(names)
    # by itself a task may find no rows, where others of its family had shown some
    alone = {name for name, one in found.items() if one.as_is is not None and one.as_is.code == "not_judged"}
    assert len(alone) <= 6
    wanted = {name: packaged()[name] for name in names if name not in alone}
    assert {name: found[name] for name in wanted} == wanted


CHOICE = """\
task: {name}
output_type: multiple_choice
dataset_path: json
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: gold
doc_to_choice: options
"""


def verdict(folder: Path, text: str, code: str = "") -> Verdict:
    (folder / "task.yaml").write_text(text.format(name="own"))
    (folder / "utils.py").write_text(code)
    return judge(Entry("own", "task", str(folder / "task.yaml")))[0]


def test_a_plain_choice_is_asked_by_letters_or_with_log_probabilities(tmp_path: Path) -> None:
    found = verdict(tmp_path, CHOICE)
    assert found.modes == {"chat": "chat_choice", "completions": None, "echo": "as is"}
    assert found.obstacle is None


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ("metric_list: [{{metric: f1}}]", "", "no_accuracy"),
        (
            "process_results: !function utils.share",
            "def share(doc, results):\n    return {'acc': 0.5}\n",
            "no_accuracy",
        ),
        ("doc_to_choice: ['', '']", "", "not_judged"),
        ("process_docs: !function utils.gone", "import a_package_that_is_not_there\n", "package"),
        ("process_docs: !function utils.gone", "def other(docs):\n    return docs\n", "broken"),
        (
            "process_docs: !function utils.none",
            "def none(docs):\n    return docs.filter(lambda doc: False)\n",
            "not_judged",
        ),
        (
            "process_docs: !function utils.hub",
            "import datasets\ndef hub(docs):\n    return datasets.load_dataset('someone/something')\n",
            "hub_code",
        ),
        ("process_docs: !function utils.gone", "import sys\nsys.exit('a program is missing')\n", "ends"),
        ("unsafe_code: true", "", "runs_code"),
        ("doc_to_image: picture", "", "media"),
        ("dataset_kwargs: {{trust_remote_code: true}}", "", "script"),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path: Path, more: str, code: str, reason: str) -> None:
    found = verdict(tmp_path, f"{CHOICE}{more}\n", code)
    assert found.modes["chat"] is None
    assert found.obstacle is not None
    assert found.obstacle.code == reason


def test_what_code_says_that_ends_is_told(tmp_path: Path) -> None:
    code = "import sys\nsys.exit('the program swipl is missing')\n"
    found = verdict(tmp_path, f"{CHOICE}process_docs: !function utils.gone\n", code)
    assert found.obstacle is not None and found.obstacle.detail == "the program swipl is missing"


def test_some_families_alone_are_judged_anew() -> None:
    entries = [entry for entry in index().entries.values() if entry.kind in ("task", "python")]
    assert {entry.name for entry in of_families(entries, ["logiqa", "swag"])} == {"logiqa", "swag"}
    assert of_families(entries, []) == entries
    with pytest.raises(SystemExit, match="'nowhere' is no folder of lm-eval's tasks"):
        of_families(entries, ["swag", "nowhere"])


def test_rows_are_found_for_what_code_reads(tmp_path: Path) -> None:
    code = (
        "def keep(docs):\n"
        "    return docs.filter(lambda doc: doc['subject'] == 'botany').map(ask)\n"
        "def ask(doc):\n"
        "    return {'question': doc['meta']['stem'].strip(), 'options': doc['choices'], 'gold':\n"
        "            ['A', 'B', 'C', 'D'].index(doc['key'])}\n"
    )
    found = verdict(tmp_path, f"{CHOICE}process_docs: !function utils.keep\n", code)
    assert found.modes["chat"] == "chat_choice"


def test_kinds_of_requests_that_chat_cannot_take_say_so(tmp_path: Path) -> None:
    text = (
        "task: {name}\ndataset_path: json\ntest_split: test\ndoc_to_text: ''\ndoc_to_target: '{{{{page}}}}'\n"
    )
    rolling = verdict(tmp_path, f"{text}output_type: loglikelihood_rolling\n")
    assert rolling.obstacle is not None
    assert rolling.obstacle.code == "rolling"
    assert rolling.modes == {"chat": None, "completions": None, "echo": "as is"}
    assert rolling.notes == ("first_token",)
    bare = verdict(tmp_path, f"{text}output_type: loglikelihood\n")
    assert bare.as_is is not None
    assert bare.as_is.code == "empty_context"
    asked = verdict(tmp_path, f"{text}output_type: generate_until\n".replace("''", "'{{{{question}}}}'"))
    assert set(asked.modes.values()) == {"as is"}


def test_tasks_that_differ_in_wording_and_names_alone_are_alike(tmp_path: Path) -> None:
    def of(number: int, text: str) -> str | None:
        path = tmp_path / f"{number}.yaml"
        path.write_text(CHOICE.format(name="own").replace("{{question}}", text))
        return likeness(Entry("own", "task", str(path)))

    english = of(1, r"Question: {{question}}\nA. {{a}}\nAnswer:")
    assert of(2, r"Frage: {{question}}\nA. {{a}}\nAntwort:") == english
    assert of(3, r"Frage: {{question}}\nB. {{a}}\nAntwort:") != english
    assert of(4, r"Question: {{questions}}\nA. {{a}}\nAnswer:") != english
