"""Bad input through the command: one clear line and an exit code, or a recorded fault, and no rests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.stores.documents.collections import ATTEMPTS, EPOCHS, PROMPTS, SCORES
from testbench_dagster_tests.acceptance import gsm8k
from testbench_dagster_tests.acceptance.harness import Answers, Finished, Installation, Replay
from testbench_dagster_tests.endpoints import Supplier
from testbench_dagster_tests.servers import free_port
from testbench_dagster_tests.tasks.layouts import shared_rows

Settings = dict[str, Any]
SYSTEM = "175b_verification"
NOWHERE = "http://127.0.0.1:9/v1"


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def base(installation: Installation) -> Settings:
    """A good configuration over small files, to be spoiled by a test."""
    settings = gsm8k.settings({"one": NOWHERE}, docs=20)
    rows = [{"question": f"How much is {n} plus 7?", "answer": f"{n} + 7\n#### {n + 7}"} for n in range(60)]
    for split in ("train", "test"):
        write_rows(installation.folder / f"{split}.jsonl", rows)
        settings["tasks"][0]["data"][split] = f"{split}.jsonl"
    return settings


@pytest.fixture
def recorded(base: Settings, installation: Installation, shared: Path) -> Settings:
    """The same over questions that recorded systems answered."""
    assert shared.is_dir()
    for split in ("train", "test"):
        write_rows(installation.folder / f"{split}.jsonl", shared_rows(f"gsm8k/{split}.jsonl.gz")[:60])
    return base


def refused(installation: Installation, *command: str) -> str:
    """Run a command that has to refuse its input; return its message."""
    return message_of(installation.command(*(command or ("run",))))


def message_of(done: Finished) -> str:
    """What a command said that had to refuse its input."""
    assert done.code == 2, done
    assert done.out == ""
    assert "Traceback" not in done.err
    *notes, message = done.err.strip().splitlines()
    assert all(note.startswith("catalog: ") for note in notes), done.err
    assert message.startswith("error: ")
    return message


def assert_nothing_was_stored(installation: Installation) -> None:
    """Neither a dataset nor anything made from one is in the stores."""
    if installation.home.exists():
        with installation.datasets() as datasets:
            assert datasets.tasks() == []
        with installation.documents() as documents:
            for collection in (EPOCHS, PROMPTS, ATTEMPTS, SCORES):
                assert documents.count(collection) == 0


def set_unknown_key(settings: Settings, folder: Path) -> None:
    settings["suppliers"][0]["modle"] = "x"


def set_unknown_block(settings: Settings, folder: Path) -> None:
    settings["sampler"] = {}


def set_missing_file(settings: Settings, folder: Path) -> None:
    settings["tasks"][0]["data"]["test"] = "absent.jsonl"


def drop_a_column_of_every_row(settings: Settings, folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    write_rows(folder / "test.jsonl", ({"answer": row["answer"]} for row in rows))


def spoil_a_line(settings: Settings, folder: Path) -> None:
    lines = (folder / "train.jsonl").read_text().splitlines()
    lines[6] = lines[6][:-1]
    (folder / "train.jsonl").write_text("\n".join(lines))


def empty_a_file(settings: Settings, folder: Path) -> None:
    (folder / "test.jsonl").write_text("")


def drop_the_shots(settings: Settings, folder: Path) -> None:
    del settings["tasks"][0]["data"]["train"]


def duplicate_the_supplier(settings: Settings, folder: Path) -> None:
    settings["suppliers"].append(dict(settings["suppliers"][0]))


def duplicate_the_task(settings: Settings, folder: Path) -> None:
    settings["tasks"].append(dict(settings["tasks"][0]))


def misspell_the_task(settings: Settings, folder: Path) -> None:
    settings["tasks"][0]["name"] = "gsm8kk"


def misspell_the_filter(settings: Settings, folder: Path) -> None:
    settings["tasks"][0]["filter"] = "flexible"


def exceed_the_window(settings: Settings, folder: Path) -> None:
    settings["tasks"][0]["samples"] = {"min": 10, "max": 21}


def use_an_unset_variable(settings: Settings, folder: Path) -> None:
    settings["suppliers"][0]["base_url"] = "${TESTBENCH_NO_SUCH_URL}"


def write_the_key(settings: Settings, folder: Path) -> None:
    settings["suppliers"][0]["api_key"] = "sk-secret"


def put_the_key_into_the_url(settings: Settings, folder: Path) -> None:
    settings["suppliers"][0]["base_url"] = "http://me:sk-secret@127.0.0.1:9/v1"


def name_an_unset_key(settings: Settings, folder: Path) -> None:
    settings["suppliers"][0]["api_key_env"] = "TESTBENCH_NO_SUCH_KEY"


def give_a_negative_timeout(settings: Settings, folder: Path) -> None:
    settings["relays"] = {"total_s": -3}


BAD: list[tuple[Callable[[Settings, Path], None], list[str]]] = [
    (set_unknown_key, ["suppliers[0].modle", "unknown key 'modle'", "correct its spelling"]),
    (set_unknown_block, ["unknown key 'sampler'", "correct its spelling"]),
    (set_missing_file, ["'gsm8k'", "data.test", "absent.jsonl", "correct the path"]),
    (drop_a_column_of_every_row, ["'gsm8k'", "test.jsonl", "lacks a column", "'question'"]),
    (spoil_a_line, ["train.jsonl", "line 7", "not valid JSON"]),
    (empty_a_file, ["test.jsonl", "holds no rows"]),
    (drop_the_shots, ["'gsm8k'", "split 'train'", "add train: <file>", "num_fewshot: 0"]),
    (duplicate_the_supplier, ["suppliers[1]", "'one@external'", "another address"]),
    (duplicate_the_task, ["tasks[1]", "'gsm8k'", "alias"]),
    (misspell_the_task, ["unknown task 'gsm8kk'", "did you mean gsm8k"]),
    (misspell_the_filter, ["'gsm8k'", "no filter 'flexible'", "flexible-extract"]),
    (exceed_the_window, ["tasks[0]", "samples.max 21", "window 20", "raise the window"]),
    (use_an_unset_variable, ["suppliers[0].base_url", "TESTBENCH_NO_SUCH_URL", "export it"]),
    (write_the_key, ["suppliers[0].api_key", "api_key_env"]),
    (put_the_key_into_the_url, ["suppliers[0].base_url", "api_key_env"]),
    (name_an_unset_key, ["one@external", "TESTBENCH_NO_SUCH_KEY", "export it"]),
    (give_a_negative_timeout, ["relays.total_s", "-3", "greater than 0"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "parts"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_bad_input_is_refused_in_one_line(
    spoil: Callable[[Settings, Path], None], parts: list[str], base: Settings, installation: Installation
) -> None:
    spoil(base, installation.folder)
    installation.configure(**base)
    message = refused(installation)
    for part in parts:
        assert part in message
    assert "sk-secret" not in message, "a key is never shown"
    assert_nothing_was_stored(installation)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("suppliers: [1,\nb: {", ["not valid YAML", "line 2"]),
        ("- a\n- b\n", ["must be a mapping"]),
        ("suppliers: []\n", ["tasks", "required"]),
        ("suppliers: []\ntasks: []\n", ["tasks", "the list is empty"]),
        ("\udcff".encode("utf-8", "surrogateescape"), ["cannot read"]),
    ],
)
def test_a_file_that_is_no_configuration(
    text: str | bytes, parts: list[str], installation: Installation
) -> None:
    path = installation.folder / "testbench.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = message_of(installation.command_here("run"))
    assert str(path) in message
    for part in parts:
        assert part in message
    assert not installation.home.exists()


def test_a_configuration_that_is_not_there(installation: Installation) -> None:
    assert "no configuration at" in refused(installation, "-c", "nowhere.yaml", "run")


@pytest.mark.slow
def test_unknown_names_on_the_command_line(base: Settings, installation: Installation) -> None:
    installation.configure(**base)
    assert "configured are: gsm8k" in refused(installation, "run", "--task", "arc")
    for command in ("run", "plan", "scores"):
        told = refused(installation, command, "--supplier", "two@external")
        assert "supplier 'two@external'" in told
        assert "are: one@external" in told
    assert "configured are: gsm8k" in refused(installation, "scores", "--task", "arc")
    assert_nothing_was_stored(installation)


@pytest.mark.slow
def test_a_bad_file_leaves_what_was_measured_before(
    recorded: Settings, installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    with Replay(answers.gsm8k(SYSTEM), tmp_path) as server:
        recorded["suppliers"][0]["base_url"] = server.url
        installation.configure(**recorded)
        installation.run()
        before = installation.scores()
        empty_a_file(recorded, installation.folder)
        refused(installation)
        assert installation.scores() == before
        assert server.stats()["requests"] == 20


# Suppliers that misbehave ---------------------------------------------------------------------------------


@pytest.fixture
def misbehaving() -> Iterator[Supplier]:
    supplier = Supplier()
    yield supplier
    supplier.stop()


def attempts_of(installation: Installation, address: str) -> list[dict[str, Any]]:
    with installation.documents() as documents:
        return list(documents.find(ATTEMPTS, {"supplier": f"{address}@external"}, sort=[("attempt", 1)]))


@pytest.mark.slow
def test_an_unreachable_supplier(base: Settings, installation: Installation) -> None:
    base["suppliers"][0]["base_url"] = f"http://127.0.0.1:{free_port()}/v1"
    base["relays"] = {"connect_s": 2, "total_s": 2, "retries": 2}
    installation.configure(**base)
    done: Finished = installation.command("run", timeout_s=180)
    assert done.code == 1, done
    assert "Traceback" not in done.err
    assert "nothing was scored (one@external transport" in done.err.splitlines()[-1]
    attempts = attempts_of(installation, "one")
    assert {a["fault"] for a in attempts} == {"transport"}
    assert {a["owner"] for a in attempts} == {"network"}
    assert {a["status"] for a in attempts} == {None}
    assert 3 <= len(attempts) <= 3 * 20
    assert max(a["attempt"] for a in attempts) == 3, "two retries, each recorded"
    (row, _) = installation.scores()
    assert (row["status"], row["n"], row["score"]) == ("no_data", 0, None)
    assert set(row["errors"]) == {"transport"}


@pytest.mark.slow
def test_a_missing_key_concerns_its_supplier_only(
    recorded: Settings, installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    with Replay(answers.gsm8k(SYSTEM), tmp_path) as server:
        recorded["suppliers"] = gsm8k.settings({"locked": server.url, "open": server.url})["suppliers"]
        recorded["suppliers"][0]["api_key_env"] = "TESTBENCH_NO_SUCH_KEY"
        installation.configure(**recorded)
        done = installation.run()
        assert server.stats()["requests"] == 20
    assert "left out: supplier locked@external: api_key_env names TESTBENCH_NO_SUCH_KEY" in done.err
    rows = installation.scores()
    assert gsm8k.primary(rows, "open")["n"] == 20
    assert gsm8k.primary(rows, "locked")["status"] == "no_data"


@pytest.mark.slow
def test_hostile_answers_are_recorded_and_harm_nobody_else(
    recorded: Settings, installation: Installation, answers: Answers, misbehaving: Supplier, tmp_path: Path
) -> None:
    """50 MB with and without announcement, 300 MB packed into 300 KB, 10,000-deep JSON, a redirect."""
    hostile = ("huge", "announced", "bomb", "deep", "redirect")
    with Replay(answers.gsm8k(SYSTEM), tmp_path) as server:
        urls = {name: misbehaving.url(name) for name in hostile} | {"good": server.url}
        recorded["suppliers"] = gsm8k.settings(urls)["suppliers"]
        recorded["tasks"][0]["samples"] = {"min": 6, "max": 6}
        recorded["relays"] = {"total_s": 20, "max_response_mb": 1}
        recorded["planning"] = {"occasions_minutes": [0, 0.05, 0.1, 0.5, 1, 2, 3]}
        installation.configure(**recorded)
        installation.run()
    rows = installation.scores()
    truth = gsm8k.flags(SYSTEM)
    with installation.documents() as documents:
        verdicts = gsm8k.verdicts(documents, "good")
    assert verdicts == {doc: truth[doc] for doc in verdicts}
    assert (gsm8k.primary(rows, "good")["n"], gsm8k.primary(rows, "good")["errors"]) == (6, {})
    for name in hostile:
        fault = "supplier_http" if name == "redirect" else "supplier_protocol"
        attempts = attempts_of(installation, name)
        assert {a["fault"] for a in attempts} == {fault}, name
        # a second attempt at most of what cannot be read; then it has its turn again at the next occasion
        per_doc = Counter(a["doc_id"] for a in attempts)
        assert max(per_doc.values()) <= (4 if name == "redirect" else 2)
        assert misbehaving.calls[name] == len(attempts)
        assert all(len(a["body"]) <= 2**20 for a in attempts), "evidence is cut at max_response_mb"
        row = gsm8k.primary(rows, name)
        assert (row["n"], row["errors"], row["score"]) == (0, {fault: 6}, None)
        assert (row["n_open"], row["n_failed"]) == (6, 0), "nothing shows that it answers at all"
        assert (row["coverage"], row["status"]) == (0.0, "no_data")
    assert all(a["body_truncated"] for a in attempts_of(installation, "huge"))
    assert misbehaving.calls["ok"] == 0, "a redirect is not followed"
