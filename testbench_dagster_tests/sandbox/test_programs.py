"""Hostile programs in each sandbox: nothing passes without its checks, nothing gets out, nothing stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox import attempts, landlocked, surroundings
from testbench_dagster.sandbox.bubblewrap import Bubblewrap
from testbench_dagster.sandbox.choice import CodeSandbox
from testbench_dagster.sandbox.landlocked import Landlocked
from testbench_dagster.sandbox.programs import USUAL, Limits, Reason, Sandbox
from testbench_dagster.sandbox.surroundings import USER
from testbench_dagster_tests.sandbox.sandboxes import KINDS, started
from testbench_dagster_tests.tasks.layouts import REPOSITORY

CHECKS = "def check(f):\n    assert f(1) == 6\n    assert abs(f(1) - 6) < 1e-3\n\ncheck(answer)\n"
QUICK = Limits(cpu_s=1, wall_s=1.0, memory_bytes=256 << 20)

#: Stands where an answer got what it must not have; ends the program, which no answer below does else.
PASSES = "import os; os._exit(0)"

#: Answers that are wrong and want to pass, with how each has to end.
WRONG: dict[str, tuple[str, Reason]] = {
    "a wrong value": ("def answer(x): return 5", "raised"),
    "ends at once": ("import os\nos._exit(0)", "left early"),
    "exits": ("import sys\nsys.exit(0)", "raised"),
    "raises what exits": ("raise SystemExit", "raised"),
    "ends in a call": ("import os\ndef answer(x): os._exit(0)", "left early"),
    "exits in a call": ("def answer(x): raise SystemExit(0)", "raised"),
    "ends at exit": ("import atexit, os\natexit.register(os._exit, 0)\ndef answer(x): return 5", "raised"),
    "ends in a thread": (
        "import os, threading, time\nthreading.Thread(target=lambda: os._exit(0)).start()\ntime.sleep(1)",
        "left early",
    ),
    "ends by a signal": (
        "import os, signal\nsignal.signal(14, lambda *a: os._exit(0))\nsignal.alarm(1)\nsignal.pause()",
        "left early",
    ),
    "becomes another program": ("import os\nos.execv('/usr/bin/true', ['true'])", "left early"),
    "lets a child end": ("import os\nif os.fork(): os._exit(0)\ndef answer(x): return 5", "raised"),
    "writes to every descriptor": (
        "import os\nfor n in range(64):\n try: os.write(n, b'P' + b'0' * 32)\n except OSError: pass\n"
        "os._exit(0)",
        "left early",
    ),
    "passes on what it can read": (
        "import os\ntoken = os.read(0, 32)\nfor n in range(64):\n try: os.write(n, b'P' + token)\n"
        " except OSError: pass\nos._exit(0)",
        "left early",
    ),
    "looks for bytes in frames": (
        "import os, sys\ndef answer(x):\n frame, found = sys._getframe(), []\n while frame:\n"
        "  found += [v for v in frame.f_locals.values() if isinstance(v, bytes)]\n  frame = frame.f_back\n"
        " for v in found:\n  for n in range(64):\n   try: os.write(n, b'P' + v)\n   except OSError: pass\n"
        " os._exit(0)",
        "left early",
    ),
    "changes what is to run": (
        "import sys\nempty, frame = compile('', '', 'exec'), sys._getframe()\nwhile frame:\n"
        " for name, value in list(frame.f_locals.items()):\n"
        "  for cell in getattr(value, '__closure__', None) or ():\n"
        "   if type(cell.cell_contents) is type(empty): cell.cell_contents = empty\n"
        "  if type(value) is type(empty): frame.f_locals[name] = empty\n"
        " frame = frame.f_back\ndef answer(x): return 5",
        "raised",
    ),
    "changes where it runs": (
        "import sys\nclass Space(dict):\n def __setitem__(self, name, value):\n"
        "  super().__setitem__(name, print if name == 'check' else value)\n"
        "frame = sys._getframe()\nwhile frame:\n for name, value in list(frame.f_locals.items()):\n"
        "  for cell in getattr(value, '__closure__', None) or ():\n"
        "   if cell.cell_contents is globals(): cell.cell_contents = Space(globals())\n"
        "  if value is globals(): frame.f_locals[name] = Space(value)\n"
        " frame = frame.f_back\ndef answer(x): return 5",
        "raised",
    ),
    "looks through all objects": ("import gc\nprint(gc.get_objects())", "forbidden"),
    "asks for what a frame holds": ("import gc, sys\ngc.get_referents(sys._getframe(1))", "forbidden"),
    "traces": ("import sys\nsys.settrace(lambda *a: None)", "forbidden"),
    "jumps over checks": ("import sys\ndef answer(x):\n sys._getframe(1).f_lineno = 3\n return 6", "raised"),
    "has foreign functions": ("import ctypes", "raised"),
    "has them by another name": ("import sys\nsys.modules.clear()\nimport _ctypes", "raised"),
    "has them where the hook's names are other things": (
        "import _imp, builtins, glob, sys\nkept, builtins.str = str, lambda *a: ''\nclass Spec:\n"
        " name = '_ctypes'\n origin = [p for f in sys.path for p in glob.glob(f + '/_ctypes.*.so')][0]\n"
        "m = _imp.create_dynamic(Spec)\n" + PASSES,
        "raised",
    ),
    "has them in another interpreter": (
        "try: import _xxsubinterpreters as i\nexcept ImportError: import _interpreters as i\ni.create()\n"
        + PASSES,
        "raised",
    ),
    "finds what is left of them": (
        "if any(c.__name__ == '_CData' for c in object.__subclasses__()):\n " + PASSES + "\nraise KeyError",
        "raised",
    ),
    "tests Python": ("import _testcapi\n" + PASSES, "raised"),
    "brings machine code": (
        "import _imp, glob, shutil, sys\nclass Spec: name, origin = '_json2', './_json2.so'\n"
        "try: shutil.copy([p for f in sys.path for p in glob.glob(f + '/_json.*.so')][0], '/tmp/_json2.so')\n"
        "except OSError: pass\ntry: _imp.create_dynamic(Spec)\n"
        "except ImportError as e: assert 'is not there' in str(e)\nelse: " + PASSES + "\nraise KeyError",
        "raised",
    ),
    "makes code that reads what callers hold": (
        "def f(x): return x\nf.__code__ = f.__code__.replace(co_code=f.__code__.co_code)\n" + PASSES,
        "forbidden",
    ),
    "loads code that no compiler made": (
        "import marshal\ndef f(x): return x\nmarshal.loads(marshal.dumps(f.__code__))\n" + PASSES,
        "forbidden",
    ),
    "loads it as Python's own": (
        "import importlib.machinery as m, marshal, os\ndef f(x): return x\nclass L(m.SourceFileLoader):\n"
        " def path_stats(self, p): return {'mtime': 0, 'size': 0}\n"
        " def get_filename(self, n): return os.__file__\n"
        " def get_data(self, p):\n  import _imp, importlib.util as u\n"
        "  return u.MAGIC_NUMBER + bytes(12) + marshal.dumps(f.__code__)\nL('x', os.__file__).get_code('x')\n"
        + PASSES,
        "forbidden",
    ),
    "replaces exec": ("import builtins\nbuiltins.exec = print\ndef answer(x): return 5", "raised"),
    "replaces abs": (
        "import builtins\nn = [6, 9]\nbuiltins.abs = lambda x: 0\ndef answer(x): return n.pop(0)",
        "raised",
    ),
    "replaces what judges": (
        "import __main__ as m, os\nm.take = m.told = lambda *a: b'P'\nos.write = os._exit = print\n"
        "def answer(x): return 5",
        "raised",
    ),
    "replaces the error of asserts": (
        "import builtins\nbuiltins.AssertionError = ValueError\ndef answer(x): return 5",
        "raised",
    ),
    "swallows the checks": ("def answer(x): return 5\ntext = '''", "raised"),
    "defines check": ("def check(f): pass\ndef answer(x): return 5", "raised"),
    "is no program": ("def answer(x: return", "raised"),
    "is empty": ("", "raised"),
    "has a null": ("\0", "raised"),
    "has half a character": ("x = '\ud800'", "raised"),
    "is nested": ("(" * 3000 + ")" * 3000, "raised"),
    "is a large constant": ("x = 'x' * (1 << 40)", "memory"),
    "is large": ("#" * (USUAL.program_bytes + 1), "too large"),
    "crashes": ("import os\nos.kill(os.getpid(), 11)", "crashed"),
    "ends while it is told": (
        "import os\nclass E(Exception):\n def __str__(self): os._exit(0)\nraise E",
        "left early",
    ),
    "opens files": ("kept = [open('/usr/bin/env') for _ in range(1000)]", "raised"),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return started(request.param)


def test_an_answer_that_is_right_passes(sandbox: Sandbox) -> None:
    ran = sandbox.judge("import math\ndef answer(x):\n    print(x)\n    return x + 5", CHECKS)
    assert ran.passed and (ran.exit, ran.reason) == (0, "done")
    # what makes code objects of others where it is imported
    sleeps = "import asyncio, unittest.mock\nasync def get(x):\n await asyncio.sleep(0)\n return x + 5\n"
    steps = (
        "def answer(x):\n got = get(x)\n try:\n  while True: got.send(None)\n"
        " except StopIteration as end: return end.value"
    )
    assert sandbox.judge(sleeps + steps, CHECKS).passed
    # as lm-eval runs it: a part that only a script runs is not run
    assert sandbox.judge(
        "if __name__ == '__main__':\n    raise ValueError\ndef answer(x): return 6", CHECKS
    ).passed


def test_numpy_is_there_for_checks_that_import_it_and_for_no_answer_by_itself(sandbox: Sandbox) -> None:
    """It shows all memory of its process to who asks for that."""
    reads = "import numpy as np\ndef answer(x): return 6"
    assert sandbox.judge(reads, CHECKS).note.partition(":")[0] == "ModuleNotFoundError"
    with_numpy = f"import numpy as np\n{CHECKS}\nassert np.allclose(answer(1), 6)"
    if sandbox.name != "bubblewrap" or not surroundings.python_for().packages:
        with pytest.raises(SandboxError, match="its checks import numpy, which"):
            sandbox.judge("def answer(x): return 6", with_numpy)
        return
    assert sandbox.judge("def answer(x): return 6", with_numpy).passed
    assert sandbox.judge(reads, with_numpy).passed
    assert not sandbox.judge("def answer(x): return 5", with_numpy).passed


@pytest.mark.parametrize("name", WRONG)
def test_no_answer_passes_without_its_checks(name: str) -> None:
    answer, reason = WRONG[name]
    ran = started("bubblewrap").judge(answer, CHECKS)
    assert not ran.passed
    assert ran.reason == reason, ran


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_nor_where_no_namespaces_are(name: str) -> None:
    answer, reason = WRONG[name]
    ran = started("Landlock").judge(answer, CHECKS)
    assert not ran.passed
    assert ran.reason == reason, ran


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "time"),
        (
            "import signal\nfor n in (15, 24, 2, 1): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
            "time",
        ),
        ("import time\ntime.sleep(60)", "time"),
        ("import threading\nthreading.Event().wait()", "time"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", "memory"),
        ("while True: print('x' * 65536)", "output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 65536)", "output"),
        ("import os\nos.abort()", "crashed"),
    ],
)
def test_limits_end_a_program_and_say_which(sandbox: Sandbox, program: str, reason: str) -> None:
    before = of_user()
    ran = sandbox.run(program, QUICK)
    assert ran.reason == reason, ran
    assert len(ran.output.encode()) <= QUICK.output_bytes
    assert not sandbox.judge(program, "pass", QUICK).passed
    if os.getuid() == 0:
        left = of_user() - before
        waited(lambda: not alive(left))


def test_a_program_says_what_it_has_to(sandbox: Sandbox) -> None:
    ran = sandbox.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(7)")
    assert (ran.exit, ran.reason) == (7, "done")
    assert {"out", "err"} == set(ran.output.split())
    raised = sandbox.run("1 / 0")
    assert (raised.reason, raised.note) == ("raised", "ZeroDivisionError: division by zero")
    assert "Traceback" in raised.output


#: Programs that print OUT where they got to something; values in braces are of this machine.
REACHING = {
    "a link to a file": "import os\nos.symlink({canary!r}, '/tmp/link')\nopen('/tmp/link').read()",
    "a way up": "open('../../../../../..' + {canary!r}).read()",
    "the root of another process": "import os\nos.listdir('/proc/1/root/root')",
    "its own memory as a file": "open('/proc/self/mem', 'rb')",
    "its own Python to write": "open('/proc/self/exe', 'r+b')",
    "a file of the system to write": "open('/usr/bin/env', 'r+b')",
    "a second name for one": "import os\nos.link('/usr/bin/env', '/tmp/env')\nopen('/tmp/env', 'r+b')",
    "a device": "import os\nos.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))\nopen('/tmp/disk', 'rb')",
    "a terminal": "open('/dev/tty', 'w').write('x')",
    "the parent": "import os, signal\nos.kill({pid}, signal.SIGKILL)",
    "the group of the parent": "import os, signal\nos.killpg({group}, 0)",
    "root by a program of it": "import os\nos.setuid(0)",
    "more memory than it may have": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "a file that was open": "import os\nos.lseek({descriptor}, 0, 0)\nos.read({descriptor}, 1)",
    "a secret of the environment": "import os\nos.environ['TESTBENCH_SECRET']",
    "a child by posix_spawn": "import os\nos.posix_spawn('/usr/bin/true', ['true'], {{}})",
    "a child by subprocess": "import subprocess\nsubprocess.run(['true'])",
    "a child by multiprocessing": "import multiprocessing as m\nm.Process(target=print).start()",
    "a server": "import socket\nsocket.create_server(('127.0.0.1', 0))",
    "a name": "import socket\nsocket.getaddrinfo('example.com', 80)",
}


@pytest.mark.parametrize("kind", ["bubblewrap", pytest.param("Landlock", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", REACHING)
def test_nothing_of_this_machine_is_reached(
    kind: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = started(kind)
    monkeypatch.setenv("TESTBENCH_SECRET", "secret")
    canary = tmp_path / "canary"
    canary.write_text("secret", "utf-8")
    canary.chmod(0o644)
    for folder in [tmp_path, *tmp_path.parents][:4]:
        folder.chmod(folder.stat().st_mode | 0o011)
    with canary.open() as held:
        # inheritable, and a number that is free: one in use may be another test's pipe to a child
        number = fcntl.fcntl(held, fcntl.F_DUPFD, 50)
        try:
            program = REACHING[what].format(
                canary=str(canary), pid=os.getpid(), group=os.getpgrp(), descriptor=number
            )
            ran = sandbox.run(f"{program}\nprint('OUT')", QUICK)
        finally:
            os.close(number)
    assert "OUT" not in ran.output and ran.reason == "raised", ran


def test_bubblewrap_holds() -> None:
    assert started("bubblewrap").probe() is None


@pytest.mark.slow
def test_the_walls_of_a_process_hold() -> None:
    assert started("Landlock").probe() is None


class _Open:
    """No sandbox at all: programs run as they are, which a probe has to notice."""

    name = "nothing"

    def __init__(self) -> None:
        self._inner = started("bubblewrap")

    def run(self, program: str, limits: Limits = USUAL):  # type: ignore[no-untyped-def]
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
        )
        closed = self._inner.run("pass")
        return type(closed)(exit=done.returncode, reason="done", output=done.stdout + done.stderr)

    def judge(self, answer: str, checks: str, limits: Limits = USUAL):  # type: ignore[no-untyped-def]
        return self._inner.judge(answer, checks, limits)


def test_a_probe_notices_where_nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOP", "_SLEEP", "_MEMORY", "_OUTPUT"):
        monkeypatch.setattr(attempts, name, "pass")
    found = attempts.first_escape(_Open())  # type: ignore[arg-type]
    assert found is not None and found.startswith("a program in nothing could ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "only",
    [
        "reach a server on this machine",
        "read a file of this machine",
        "read accounts",
        "list the home of root",
        "read the environment of processes",
        "send a signal to this process",
        "start a process",
    ],
)
def test_each_attempt_succeeds_where_nothing_holds(only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that could not succeed anywhere would say nothing."""
    if os.getuid() != 0:
        pytest.skip("as root nothing holds them back")
    for name in ("_LOOP", "_SLEEP", "_MEMORY", "_OUTPUT"):
        monkeypatch.setattr(attempts, name, "pass")
    chosen = f"    if name != {only!r}: continue\n"
    text = attempts._TRIES.replace("    try:\n        attempt()", f"{chosen}    try:\n        attempt()")
    assert chosen in text
    monkeypatch.setattr(attempts, "_TRIES", text)
    assert attempts.first_escape(_Open()) == f"a program in nothing could {only}"  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ what is left


def of_user() -> set[int]:
    """Processes of the sandbox's users; other tests have some, too, for a while."""
    return {int(path.name) for path in Path("/proc").glob("[0-9]*") if _owner(path) in (USER, 65534)}


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def descendants(pid: int) -> set[int]:
    """What a process started, and what that started."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = {int(child) for child in path.read_text("ascii").split()}
        except OSError:
            continue
        found |= children.union(*map(descendants, children))
    return found


def alive(pids: set[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        except OSError:
            continue
        found |= {pid} if state != "Z" else set()
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="who is not root has other processes of the same user")
def test_nothing_is_left_when_the_parent_dies(sandbox: Sandbox) -> None:
    kind = type(sandbox)
    code = f"""
        from {kind.__module__} import {kind.__name__} as Kind
        from testbench_dagster.sandbox.programs import Limits
        print("began", flush=True)
        program = "import signal, time\\nsignal.signal(15, signal.SIG_IGN)\\ntime.sleep(100)"
        Kind().run(program, Limits(wall_s=90.0))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"began\n"
        waited(lambda: descendants(process.pid) & of_user())
        # bubblewrap's two, and the program
        waited(lambda: len(descendants(process.pid)) == (3 if sandbox.name == "bubblewrap" else 1))
        ours = descendants(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    waited(lambda: not alive(ours))


def waited(done, most_s: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + most_s
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


# ------------------------------------------------------------------------------------ as whom, and where


def in_child_as(user: int, told: str) -> str:
    """What code prints in a process of another user; it knows this module's names."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.write(write, str(eval(told, globals())).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        said = lines.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_for_nobody_as_well(kind: str) -> None:
    started(kind)
    assert in_child_as(65534, f"KINDS[{kind!r}]().probe()") == "None"
    ran = in_child_as(65534, f"KINDS[{kind!r}]().judge('def answer(x): return 6', CHECKS).passed")
    assert ran == "True"


@pytest.fixture
def failing(tmp_path: Path) -> Bubblewrap:
    """A bwrap as it is where no user namespace may be opened."""
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n", "utf-8"
    )
    program.chmod(0o755)
    for folder in [tmp_path, *tmp_path.parents][:4]:
        folder.chmod(folder.stat().st_mode | 0o011)
    return Bubblewrap(str(program))


def test_without_user_namespaces_it_says_so(failing: Bubblewrap) -> None:
    told = failing.probe() or ""
    assert "bwrap does not start: bwrap: No permissions to create new namespace" in told
    with pytest.raises(SandboxError, match="No permissions"):
        failing.judge("x = 1", "pass")
    nothing = CodeSandbox([failing])
    assert nothing.problem() == f"bubblewrap: {told}"
    with pytest.raises(SandboxError, match="no sandbox holds on this machine: bubblewrap: bwrap does"):
        nothing.sandbox()


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_root_is_nobody_inside_also_where_setpriv_is_missing(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "_setpriv", lambda: ())
    ran = sandbox.run("import os\nprint(os.getuid(), os.getgid(), os.getgroups())")
    user, group, groups = ran.output.split(" ", 2)
    assert {user, group} <= {str(USER), "65534"}
    assert groups.strip() in ("[]", "[65534]"), "none but what is not mapped"


@pytest.mark.slow
def test_a_python_of_its_own_is_all_that_is_shown_of_where_it_lies(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the testbench runs from a Python in somebody's home."""
    system = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib", system.name)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not library.is_dir() or system.name != version:
        pytest.skip(f"no {version} of the system to copy")
    for folder in [tmp_path, *tmp_path.parents][:4]:
        folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "secret").write_text("secret", "utf-8")
    (tmp_path / "bin").mkdir()
    shutil.copy(system, tmp_path / "bin")
    needless = shutil.ignore_patterns("test", "dist-packages")
    shutil.copytree(library, tmp_path / "lib" / version, ignore=needless)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(os, "__file__", str(tmp_path / "lib" / version / "os.py"))
    surroundings._python.cache_clear()
    landlocked._start.cache_clear()
    try:
        ran = sandbox.run(f"import os, sys\nprint(os.__file__)\nopen({str(tmp_path / 'secret')!r})")
    finally:
        surroundings._python.cache_clear()
        landlocked._start.cache_clear()
    assert str(tmp_path / "lib" / version / "os.py") in ran.output.splitlines()
    assert ran.note.partition(":")[0] in ("FileNotFoundError", "PermissionError")


def test_without_bubblewrap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert Bubblewrap().probe() == "bwrap is not installed; install it (apt-get install bubblewrap)"


@pytest.mark.slow
def test_the_walls_of_a_process_take_the_place_of_namespaces(failing: Bubblewrap) -> None:
    started("Landlock")
    assert CodeSandbox([failing, Landlocked()]).sandbox().name == "Landlock"


@pytest.mark.slow
def test_a_kernel_that_allows_no_user_namespaces_is_noticed() -> None:
    started("bubblewrap")
    code = "from testbench_dagster.sandbox.bubblewrap import Bubblewrap as B; print(B().probe())"
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"',
            sys.executable,
            code,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "sh:" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no namespace to try this in: {done.stderr}")
    assert done.stdout.startswith("bwrap does not start: "), done
