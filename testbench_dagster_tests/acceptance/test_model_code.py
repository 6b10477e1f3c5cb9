"""HumanEval from testbench.yaml to scores: canonical answers, and hostile ones, of recorded suppliers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbench_dagster.config import load_config_text
from testbench_dagster.sandbox.programs import USUAL
from testbench_dagster_tests.acceptance.documents import blocks_of, document, yaml_of
from testbench_dagster_tests.acceptance.harness import Installation, Replay
from testbench_dagster_tests.sandbox.sandboxes import started
from testbench_dagster_tests.tasks.layouts import DATA, shared_rows

PAGE = document("docs/code.md")
ROWS = "code_math/humaneval.jsonl.gz"
#: What a hostile supplier says, by turns.
HOSTILE = (
    "    import os\n    os._exit(0)\n",
    "    raise SystemExit(0)\n",
    "    return open('/etc/passwd').read()\n",
    "    import socket\n    return socket.create_connection(('127.0.0.1', {port}))\n",
    "    import os\n    while True:\n        os.fork()\n",
    "    import os\n    os.kill(os.getppid(), 9)\n    os._exit(0)\n",
    "    import os\n    return dict(os.environ)\n",
)


def test_the_page_says_the_limits_that_there_are(tmp_path: Path) -> None:
    mib = 1 << 20
    rows = {
        cells[1].strip(): cells[2].strip() for line in PAGE.splitlines() if len(cells := line.split("|")) == 5
    }
    assert rows["CPU time"] == f"{USUAL.cpu_s} s"
    assert rows["time by the clock"] == f"{USUAL.wall_s:g} s"
    assert rows["memory"] == f"{USUAL.memory_bytes // mib} MiB"
    assert rows["processes, threads"] == f"1, {USUAL.threads}"
    assert rows["a file, all files"] == f"{USUAL.file_bytes // mib}, {USUAL.folder_bytes // mib} MiB"
    assert rows["open files"] == str(USUAL.open_files)
    assert rows["output"] == f"{USUAL.output_bytes >> 10} kB"
    assert rows["program"] == f"{USUAL.program_bytes // mib} MiB"
    [snippet] = yaml_of(PAGE)
    assert load_config_text(snippet, tmp_path / "testbench.yaml").settings.allow_code_execution
    assert [block.text.strip() for block in blocks_of(PAGE) if block.language == "bash"][
        -1
    ] == "testbench check"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / ROWS).is_file(), reason=f"no {DATA / ROWS}")
def test_canonical_answers_score_one_and_hostile_ones_nothing(tmp_path: Path) -> None:
    started("bubblewrap")
    rows = shared_rows(ROWS)

    def recorded(name: str, said: list[str]) -> Path:
        path = tmp_path / f"{name}.jsonl"
        lines = [{"match": row["prompt"], "response": text} for row, text in zip(rows, said, strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    installation = Installation(tmp_path / "home")
    installation.folder.mkdir()
    right = recorded("right", [row["canonical_solution"] for row in rows])
    wrong = recorded("wrong", [HOSTILE[i % len(HOSTILE)].replace("{port}", "9") for i in range(len(rows))])
    with Replay(right, tmp_path) as canonical, Replay(wrong, tmp_path) as hostile:
        suppliers = [
            {"address": name, "service": "s", "base_url": server.url, "model": name, "api": "completions"}
            for name, server in (("canonical", canonical), ("hostile", hostile))
        ]
        settings = {
            "suppliers": suppliers,
            "tasks": [{"name": "humaneval", "data": {"test": str(DATA / ROWS)}, "samples": "all"}],
            "sampling": {"window": 200},
        }
        installation.configure(**settings)
        refused = installation.command("check")
        assert (
            "runs code that the model wrote, and allow_code_execution is false; set it to true" in refused.out
        )
        installation.configure(**settings, allow_code_execution=True)
        checked = installation.command("check")
        assert checked.code == 0, checked
        assert "model-written code: runs in bubblewrap with Python 3." in checked.out
        installation.run()
    scores = {row["supplier"]: row for row in installation.scores()}
    assert {key: (row["n"], row["score"]) for key, row in scores.items()} == {
        "canonical@s": (len(rows), 1.0),
        "hostile@s": (len(rows), 0.0),
    }
    answers = installation.command("answers", "-s", "hostile@s", "-t", "humaneval", "--format", "json")
    told = {str(answer["error"]) for answer in json.loads(answers.out)}
    assert "the program ended before its checks were through" in told
    assert any("No such file or directory: '/etc/passwd'" in one for one in told)
    assert all(one.startswith("the program ") for one in told)
