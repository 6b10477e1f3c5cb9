"""Logs of runs in S3, as docs/operations.md configures them: another host's UI shows them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import dagster as dg
import pytest

import testbench_dagster

ROOT = Path(testbench_dagster.__file__).parents[1]


def documented() -> str:
    """The lines for `dagster.yaml`."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    [found] = re.findall(r"^```text\n(# dagster\.yaml: compute logs in S3\n.*?)^```$", text, re.M | re.S)
    return str(found)


@dg.asset
def talkative() -> None:
    print("said on this host")
    print("and complained", file=sys.stderr)


@pytest.mark.slow(minutes=0.2)
def test_what_a_step_printed_shows_on_another_host(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBENCH_LOG_BUCKET", s3_bucket.removeprefix("s3://"))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    settings = (ROOT / "dagster.yaml").read_text("utf-8") + documented()
    homes = []
    for name in ("a", "b"):
        homes.append(tmp_path / name)
        homes[-1].mkdir()
        (homes[-1] / "dagster.yaml").write_text(settings, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(homes[0])) as instance:
        done = dg.materialize([talkative], instance=instance)
        [captured] = [
            event.logs_captured_data for event in done.all_events if event.event_type_value == "LOGS_CAPTURED"
        ]
        key = [done.run_id, "compute_logs", captured.file_key]
    with dg.DagsterInstance.from_config(str(homes[1])) as instance:
        told = instance.compute_log_manager.get_log_data(key)
        assert told.stdout == b"said on this host\n"
        assert b"and complained" in (told.stderr or b"")
    assert not list(homes[1].rglob("*.out"))
