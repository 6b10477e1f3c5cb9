"""The files of deploy/celery: what they name exists, what must agree does, and systemd takes the units."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance

import testbench_dagster
from testbench_dagster.defs.celery_launcher import TestbenchCeleryLauncher
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.run_queue import TestbenchRunQueue
from testbench_dagster_tests.deploy import units

PACKAGE = Path(testbench_dagster.__file__).parent
DAGSTER = yaml.safe_load((units.DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
#: What must be the same for units that share a user, an environment and a way to come back.
SHARED = ("User", "EnvironmentFile", "WorkingDirectory", "Restart", "StateDirectory", "NoNewPrivileges")


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DagsterInstance:
    """Dagster's instance as the files make it, on SQLite."""
    environment = units.install(tmp_path, {"DAGSTER_POSTGRES_URL": ""})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return DagsterInstance.get()


def test_dagster_takes_the_settings(instance: DagsterInstance) -> None:
    launcher, queue = instance.run_launcher, instance.run_coordinator
    assert isinstance(launcher, TestbenchCeleryLauncher)
    assert isinstance(queue, TestbenchRunQueue)
    assert launcher.broker == launcher.backend == os.environ["TESTBENCH_REDIS_URL"]
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None
    assert limits.max_concurrent_runs == int(os.environ["TESTBENCH_RUN_SLOTS"])
    assert {(limit["value"], limit["limit"]) for limit in limits.tag_concurrency_limits} == {
        ("service_probes", 1),
        ("evaluation", int(os.environ["TESTBENCH_EVALUATION_SLOTS"])),
    }
    assert not launcher.supports_resume_run


def test_times_are_in_their_order() -> None:
    celery, monitor = DAGSTER["run_launcher"]["config"]["config_source"], DAGSTER["run_monitoring"]
    assert celery["broker_transport_options"]["visibility_timeout"] > monitor["max_runtime_seconds"]
    assert monitor["start_timeout_seconds"] > INSTANCE_SETTINGS["run_monitoring"]["start_timeout_seconds"]
    assert celery["worker_disable_prefetch"] is True
    assert celery["worker_max_tasks_per_child"] == 1
    (grace,) = units.settings("testbench-worker")["Service.TimeoutStopSec"]
    assert int(grace) > monitor["cancel_timeout_seconds"]


def test_what_does_not_concern_several_hosts_is_as_on_one() -> None:
    same = set(INSTANCE_SETTINGS) - {"concurrency", "run_monitoring", "run_coordinator"}
    assert {name: DAGSTER[name] for name in same} == {name: INSTANCE_SETTINGS[name] for name in same}
    assert DAGSTER["concurrency"]["pools"] == INSTANCE_SETTINGS["concurrency"]["pools"]


def test_variables_are_set_and_read() -> None:
    named: set[str] = set()
    for path in units.DEPLOY.glob("*.*"):
        if path.suffix in (".yaml", ".service"):
            found = re.findall(r"\$\{(\w+)\}|\{env: (\w+)\}", path.read_text(encoding="utf-8"))
            named |= {name for pair in found for name in pair if name}
    environment = set(units.environment_file())
    assert named <= environment
    read = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert {name for name in environment - named if name not in read} == set(), "nothing reads it"


#: Of Debian, which has it in systemd: prints what files of variables set, read as EnvironmentFile is.
GENERATOR = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")
URI = "mongodb://testbench:s%27e!c#r;t@db1,db2/testbench?replicaSet=rs0&authSource=admin&w=majority"


def written(uri: str) -> str:
    """testbench.env with another URI, put in as the file and the README say."""
    text = (units.DEPLOY / "testbench.env").read_text(encoding="utf-8")
    return re.sub(r"(?m)^(TESTBENCH_MONGO_URI=)'.*'$", lambda found: f"{found[1]}'{uri}'", text)


def test_values_are_read_here_as_by_systemd(tmp_path: Path) -> None:
    if not GENERATOR.exists():
        pytest.skip("no systemd, which would read the file")
    (tmp_path / "environment.d").mkdir()
    text = written(URI) + "PLAIN=a b&c\nEMPTY=\nSPACED= a \n"
    (tmp_path / "environment.d" / "testbench.conf").write_text(text)
    done = subprocess.run(
        [GENERATOR], env={"XDG_CONFIG_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    # it quotes what it prints, as a shell would read it
    said = dict(word.split("=", 1) for word in shlex.split(done.stdout))
    ours = units.environment_file(text)
    assert ours["TESTBENCH_MONGO_URI"] == URI
    assert {name: said.get(name, "") for name in ours} == ours


@pytest.fixture
def host() -> Iterator[Path]:
    """A folder that other users may enter, unlike those of tests."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def commands_of_the_readme() -> list[str]:
    blocks = re.findall(r"```text\n(.*?)```", (units.DEPLOY / "README.md").read_text("utf-8"), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_the_steps_of_the_readme_give_its_user_what_systemd_gives_its_services(host: Path) -> None:
    """Step by step, with "testbench check" replaced by one that prints its variables."""
    root = os.geteuid() == 0
    user = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(user.pw_gid).gr_name
    (host / "deploy" / "celery").mkdir(parents=True)
    for path in units.DEPLOY.iterdir():
        (host / "deploy" / "celery" / path.name).write_bytes(path.read_bytes())
    (host / "deploy" / "celery" / "testbench.env").write_text(written(URI))
    said = b""
    for line in commands_of_the_readme():
        words = shlex.split(line)
        if words[0] == "runuser":
            assert words[:4] == ["runuser", "-u", "testbench", "--"]
            script = words[-1].replace("/opt/testbench/bin/testbench check", "env -0")
            as_user = ["runuser", "-u", user.pw_name, "--"] if root else []
            command = [*as_user, *words[4:-1], script.replace("/etc/testbench", f"{host}/etc/testbench")]
            said = subprocess.run(
                command, cwd=host, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True
            ).stdout
        elif words[0] == "install":
            owners = {"testbench": user.pw_name, "root": "root" if root else user.pw_name}
            words = [
                f"{host}{word}"
                if word.startswith("/")
                else group
                if before == "-g"
                else owners[word]
                if before == "-o"
                else word
                for before, word in zip(["", *words], words, strict=False)
            ]
            subprocess.run(words, cwd=host, check=True)
        else:
            assert words[0] in ("useradd", "python3", "/opt/testbench/bin/pip"), line
    found = dict(pair.split("=", 1) for pair in said.decode().split("\0") if pair)
    wanted = units.environment_file(written(URI))
    assert {name: found[name] for name in wanted} == wanted
    env = (host / "etc" / "testbench" / "env").stat()
    assert oct(env.st_mode & 0o777) == "0o640"
    for folder in ("", "dagster"):
        assert (host / "var" / "lib" / "testbench" / folder).stat().st_uid == user.pw_uid
    assert (host / "var" / "lib" / "testbench" / "dagster" / "dagster.yaml").exists()


def test_the_table_says_of_secrets_who_may_read_them() -> None:
    """As the step that copies the file, and the file itself."""
    readme = (units.DEPLOY / "README.md").read_text(encoding="utf-8")
    step = next(line for line in commands_of_the_readme() if line.endswith(" /etc/testbench/env"))
    said = re.search(r"`/etc/testbench/env`, owner `(\w+)`, group `(\w+)`, mode ([0-7]{4})", readme)
    assert said is not None
    assert f"-o {said[1]} -g {said[2]} -m {said[3]} " in step
    head = (units.DEPLOY / "testbench.env").read_text(encoding="utf-8").splitlines()[0]
    assert said[1] in head and said[2] in head and said[3] in head


@pytest.mark.parametrize("unit", units.UNITS)
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    found = units.settings(unit)
    worker = units.settings("testbench-worker")
    assert {key: found[f"Service.{key}"] for key in SHARED} == {
        key: worker[f"Service.{key}"] for key in SHARED
    }
    (program, *_) = units.command(unit, tmp_path, units.environment_file())
    assert os.access(program, os.X_OK)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze, which would read the unit as systemd does")
    text = (units.DEPLOY / f"{unit}.service").read_text(encoding="utf-8")
    copy = tmp_path / f"{unit}.service"
    copy.write_text(text.replace(units.PROGRAMS, str(Path(sys.executable).parent)), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_workers_main_process_gets_sigterm() -> None:
    """Its children would end their runs; and one that is killed for its memory leaves the others alone."""
    worker = units.settings("testbench-worker")
    assert worker["Service.KillMode"] == ["mixed"]
    assert worker["Service.OOMPolicy"] == ["continue"]
    # what bubblewrap and Landlock need for tasks that run code
    assert not {"RestrictNamespaces", "ProtectKernelTunables", "ProtectProc", "SystemCallFilter"} & {
        key.partition(".")[2] for key in worker
    }
