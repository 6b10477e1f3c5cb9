"""The command line as its users meet it: help, exit codes, clean stdout, and the demo from end to end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.identity import needed_prompts
from testbench_dagster.localnet.demo import TWIN_PAIRS
from testbench_dagster_tests.acceptance.documents import document
from testbench_dagster_tests.commands import Said, say
from testbench_dagster_tests.tasks.layouts import REPOSITORY

COMMANDS = [
    "demo",
    "init",
    "up",
    "board",
    "check",
    "run",
    "tasks",
    "plan",
    "probe",
    "backfill",
    "scores",
    "show",
    "answers",
    "history",
    "service",
    "taxonomies",
    "compare",
    "identity",
    "references",
    "twins",
    "suspicions",
    "leaderboard",
    "feed",
    "export",
    "evidence",
    "rescore",
    "migrate",
    "localnet",
    "localnet up",
    "localnet control",
    "import-frameworks",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def clean(cache: Path) -> dict[str, str]:
    """The environment of a command: nothing of the caller's installation."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),  # the code beside these tests, whatever is installed
        "HOME": str(cache),
        "TESTBENCH_CACHE_DIR": str(cache),
    }


def testbench(
    folder: Path, cache: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", *arguments],
        cwd=folder,
        env={**clean(cache), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


testbench.__test__ = False  # type: ignore[attr-defined]  # pytest: the name only starts like a test


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(tmp_path: Path, cache: Path, command: str) -> None:
    explains_itself(tmp_path, say(tmp_path, *command.split(), "--help", environment=clean(cache)))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself_where_nothing_else_was_imported(
    tmp_path: Path, cache: Path, command: str
) -> None:
    explains_itself(tmp_path, testbench(tmp_path, cache, *command.split(), "--help"))


def explains_itself(tmp_path: Path, done: Said | subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    assert len(done.stdout.splitlines()) > 4
    assert list(tmp_path.iterdir()) == []


def test_help_lists_all_commands(tmp_path: Path, cache: Path) -> None:
    text = say(tmp_path, "--help", environment=clean(cache)).stdout
    assert set(re.findall(r"^  (\w[\w-]*)  ", text, re.M)) == {c for c in COMMANDS if " " not in c}


@pytest.mark.parametrize("group", ["", "localnet"])
def test_no_summary_of_a_command_is_cut_on_a_terminal_of_80_columns(group: str) -> None:
    text = CliRunner().invoke(cli, [*group.split(), "--help"], env={"COLUMNS": "80"}).stdout
    lines = text.partition("Commands:\n")[2].splitlines()
    of_group = {command.split()[-1] for command in COMMANDS if command.rpartition(" ")[0] == group}
    assert {line.split()[0] for line in lines} == of_group, "one line each"
    for line in lines:
        name, summary = line.split(maxsplit=1)
        assert len(line) <= 80 and len(summary) <= 45, name
        assert not summary.endswith("."), f"give {name} a short_help"


def test_a_command_is_imported_when_it_is_asked_for() -> None:
    program = """
import sys
from testbench_dagster.cli import cli
heavy = {"pydantic", "sqlalchemy", "testbench_dagster.stages.workspace"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
names = cli.list_commands(None)
assert [cli.get_command(None, name).name for name in names] == names
assert cli.get_command(None, "runs") is None
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_version(tmp_path: Path, cache: Path) -> None:
    from testbench_dagster import __version__

    assert testbench(tmp_path, cache, "--version").stdout == f"testbench, version {__version__}\n"
    versions = re.findall(r"^## (.*)$", document("CHANGELOG.md"), re.MULTILINE)
    released = [version for version in versions if version != "Unreleased"]
    assert released[0] == __version__, "the changes of this version stand first, but for those to come"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--nope"], 2, "No such option"),
        (["nope"], 2, "No such command"),
        (["scores", "--nope"], 2, "No such option"),
        (["scores", "--format", "xml"], 2, "'xml' is not one of"),
        (["run", "--max-relays", "-1"], 2, "-1 is not in the range"),
        (["demo", "--suppliers", "0"], 2, "0 is not in the range"),
        (["export"], 2, "Missing option '--out'"),
        (["-c", "missing.yaml", "scores"], 2, "no configuration at"),
        (["scores", "--supplier", "nobody@nowhere"], 2, "supplier 'nobody@nowhere' is not on the roster"),
        (["scores", "--task", "starter_logik"], 2, "task 'starter_logik' is not configured"),
        (["compare", "sim-01@simulation"], 2, "Missing argument 'B'"),
        (["compare", "a@b", "c@d"], 2, "supplier 'a@b' is not on the roster"),
        (["leaderboard", "--taxonomy", "nope"], 2, "taxonomy 'nope' is not configured; configured are: "),
        (["run", "--supplier", "nobody@nowhere"], 2, "supplier 'nobody@nowhere' is not active"),
        (["run", "--task", "starter_logik"], 2, "task 'starter_logik' is not configured"),
    ],
)
def test_exit_codes_and_messages(
    tmp_path: Path, cache: Path, arguments: list[str], code: int, said: str
) -> None:
    done = say(tmp_path, *arguments, environment=clean(cache))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_ends_with_the_code_that_says_it(tmp_path: Path, cache: Path) -> None:
    for arguments in (["nope"], ["-c", "missing.yaml", "scores"]):
        done = testbench(tmp_path, cache, *arguments)
        said = say(tmp_path, *arguments, environment=clean(cache))
        assert (done.returncode, done.stdout) == (said.returncode, said.stdout) == (2, "")
        assert done.stderr.splitlines()[-1] == said.stderr.splitlines()[-1]


def test_a_wrong_configuration_is_two(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "testbench.yaml").write_text("tasks: [{name: starter_logic, shots: 1}]", encoding="utf-8")
    for command in (["check"], ["run"], ["scores"], ["up"], ["export", "--out", "x"]):
        done = say(tmp_path, *command, environment=clean(cache))
        assert done.returncode == 2, command
        assert "tasks[0].shots: unknown key 'shots'" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"testbench.yaml"}, "nothing half-written"


@pytest.mark.slow
def test_an_unreachable_network_is_one(tmp_path: Path, cache: Path) -> None:
    done = testbench(tmp_path, cache, "check", TESTBENCH_LOCALNET_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stdout.count("FAIL  supplier sim-") == 7
    assert "is it running, and is base_url right?" in done.stdout
    assert "7 problems found" in done.stderr


def test_an_empty_installation_lists_what_is_unknown(tmp_path: Path, cache: Path) -> None:
    done = testbench(tmp_path, cache, "scores", "--format", "json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert {row["status"] for row in rows} == {"no_data"}
    assert len(rows) == 7 * 13


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, cache: Path) -> None:
    command = f"{sys.executable} -c 'from testbench_dagster.cli import main; main()' scores --format json"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 1"],
        cwd=tmp_path,
        env=clean(cache),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[")
    assert done.stderr.startswith("no testbench.yaml here") and done.stderr.count("\n") == 1


# --------------------------------------------------------------------------------------------- demo


def scores_of(folder: Path, cache: Path, **environment: str) -> list[dict[str, Any]]:
    path = str(folder / ".testbench" / "demo" / "testbench.yaml")
    done = testbench(folder, cache, "-c", path, "scores", "--format", "json", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_demo_from_end_to_end(tmp_path: Path, cache: Path) -> None:
    first = testbench(tmp_path, cache, "demo", "--no-ui", "--suppliers", "4")
    assert first.returncode == 0, first.stderr
    assert "Leaderboard (simulation)" in first.stdout
    assert set(re.findall(r"sim-\d+@simulation", first.stdout)) == {
        f"sim-0{n}@simulation" for n in range(1, 5)
    }
    assert "suppliers are simulated" in first.stderr
    sent = int(re.search(r"evaluation: (\d+) relays sent", first.stderr)[1])  # type: ignore[index]
    assert sent > 4 * 7 * 40

    rows = scores_of(tmp_path, cache)
    by_status: dict[str, set[str]] = {}
    for row in rows:
        by_status.setdefault(row["status"], set()).add(row["task"])
    by_form = {"starter_choice", "starter_choice~chat", "tools_several", "tools_none"}
    assert by_status["unsupported"] == by_form
    assert "no_data" not in by_status
    measured = [row for row in rows if row["primary"] and row["status"] == "ok"]
    probes = needed_prompts(len({row["supplier"] for row in rows}))
    docs = {
        "lm_eval": (40, 80),
        "chat_choice": (40, 80),
        "tools": (40, 80),
        "signatures": (probes, probes),
        "twins": (2 * TWIN_PAIRS, 2 * TWIN_PAIRS),
    }  # by framework: least and most that are asked
    assert {row["framework"] for row in measured} == set(docs)
    for row in measured:
        least, most = docs[row["framework"]]
        assert least <= row["n"] + sum(row["errors"].values()) <= most, row
        assert (row["score"] is None) == (row["framework"] == "signatures"), row

    path = str(tmp_path / ".testbench" / "demo" / "testbench.yaml")
    table = testbench(tmp_path, cache, "-c", path, "scores", "--task", "starter_logic")
    assert table.stdout.count("starter_logic") >= 4 and table.stderr == ""
    assert "have no score: identity" in testbench(tmp_path, cache, "-c", path, "scores").stderr
    text = testbench(tmp_path, cache, "-c", path, "leaderboard", "--format", "csv")
    listed = list(csv.DictReader(io.StringIO(text.stdout)))
    assert [row["supplier"] for row in listed] == sorted(
        (row["supplier"] for row in listed),
        key=lambda s: -float(next(r["score"] for r in listed if r["supplier"] == s)),
    )
    assert "simulated" in text.stderr
    told = {row["supplier"]: row["as_reference"] for row in listed}
    assert (told["sim-01@simulation"], told["sim-03@simulation"]) == ("reference", "yes")
    page = (tmp_path / ".testbench" / "demo" / ".testbench" / "published" / "leaderboard.html").read_text()
    assert "as the reference" in page.lower()
    best, worst = listed[0]["supplier"], listed[-1]["supplier"]
    done = testbench(tmp_path, cache, "-c", path, "compare", best, worst, "--format", "json")
    *by_task, overall = json.loads(done.stdout)
    differences = [row["difference"] for row in by_task if row["verdict"] != "no data"]
    assert len(differences) == 11  # starter_choice is unsupported, a signature is no score
    assert overall["verdict"] == "A better" and overall["ci_low"] > 0
    assert overall["difference"] == pytest.approx(sum(differences) / 11)

    out = testbench(tmp_path, cache, "-c", path, "export", "--out", str(tmp_path / "out"))
    assert out.returncode == 0, out.stderr
    names = (
        "prompts",
        "attempts",
        "answers",
        "scores",
        "windows",
        "item_matrix",
        "leaderboard",
        "references",
        "public_gaps",
        "groups",
        "service_probes",
        "service_quality",
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{n}.parquet" for n in names}

    again = testbench(tmp_path, cache, "demo", "--no-ui", "--suppliers", "4")
    assert again.returncode == 0, again.stderr
    resent = int(re.search(r"evaluation: (\d+) relays sent", again.stderr)[1])  # type: ignore[index]
    assert resent < sent / 4, "only what a wanted interval, or an unanswered call, still needs"
    assert {r["supplier"] for r in scores_of(tmp_path, cache)} == {r["supplier"] for r in rows}

    fresh = testbench(tmp_path, cache, "demo", "--no-ui", "--suppliers", "2", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert len({r["supplier"] for r in scores_of(tmp_path, cache)}) == 2
    first_at = min(r["first_sample_at"] for r in scores_of(tmp_path, cache) if r["first_sample_at"])
    assert first_at > max(r["last_sample_at"] for r in rows if r["last_sample_at"])
