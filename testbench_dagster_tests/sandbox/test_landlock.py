"""Walls are tried from behind: each probe is code that runs in a confined child process."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox import landlock

pytestmark = pytest.mark.skipif((WHY := landlock.probe()) is not None, reason=f"no wall to try here: {WHY}")

START = f"""
import ctypes, errno, fcntl, json, os, resource, signal, socket, struct, sys, termios, threading, time
from pathlib import Path
sys.path[:] = {sys.path!r}
from testbench_dagster.sandbox.landlock import confine
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    got = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(w) if isinstance(w, int) else w for w in words])
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got
folder = Path(sys.argv[1])
open_file = open(folder / "readable" / "file")
"""

#: What nobody may, and the error that says so: code, errors' names.
DENIED = {
    "write outside": ("(folder / 'secret').write_text('x')", "EACCES"),
    "write what may be read": ("(folder / 'readable' / 'file').write_text('x')", "EACCES"),
    "make": ("(folder / 'new').touch()", "EACCES"),
    "make where it may read": ("(folder / 'readable' / 'new').touch()", "EACCES"),
    "make a folder": ("(folder / 'new').mkdir()", "EACCES"),
    "remove": ("(folder / 'secret').unlink()", "EACCES"),
    "rename": ("os.rename(folder / 'secret', folder / 'writable' / 'secret')", "EACCES EXDEV"),
    "link": ("os.link(folder / 'secret', folder / 'writable' / 'secret')", "EACCES EXDEV"),
    "make a symbolic link": ("os.symlink('/etc/passwd', folder / 'writable' / 'link')", "EACCES"),
    "follow a link that was there": ("(folder / 'writable' / 'way_out').read_text()", "EACCES"),
    "read": ("(folder / 'secret').read_text()", "EACCES"),
    "read accounts": ("Path('/etc/passwd').read_text()", "EACCES"),
    "list": ("os.listdir(folder)", "EACCES"),
    "list root's home": ("os.listdir('/root')", "EACCES"),
    "its parent's memory": ("open(f'/proc/{os.getppid()}/mem', 'rb')", "EACCES"),
    "cut": ("os.truncate(folder / 'secret', 0)", "EPERM EACCES"),
    "cut by opening to read": ("os.open(folder / 'readable' / 'file', os.O_RDONLY | os.O_TRUNC)", "EPERM"),
    "cut by opening for nothing": ("os.open(folder / 'readable' / 'file', 3 | os.O_TRUNC)", "EPERM"),
    "open in a newer way": (
        "call(437, -100, bytes(str(folder / 'secret'), 'utf-8'), bytes(24), 24)",
        "ENOSYS",
    ),
    "mode": ("(folder / 'secret').chmod(0o777)", "EPERM"),
    "mode of an open file": ("os.fchmod(open_file.fileno(), 0o777)", "EPERM EBADF"),
    "owner": ("os.chown(folder / 'secret', 1, 1)", "EPERM"),
    "times": ("os.utime(folder / 'secret', (0, 0))", "EPERM"),
    "attribute": ("os.setxattr(folder / 'secret', 'user.x', b'1')", "EPERM"),
    "a call of next year": ("call(500)", "ENOSYS"),
    "x86's other numbers": ("call(0x40000000 + 41, 2, 1, 0)", "ENOSYS"),
    "TCP": ("socket.socket().connect(('127.0.0.1', 9))", "EPERM"),
    "UDP": ("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "EPERM"),
    "a server behind a path": ("socket.socket(socket.AF_UNIX)", "EPERM"),
    "packets": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM"),
    "netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "EPERM"),
    "signal its parent": ("os.kill(os.getppid(), signal.SIGTERM)", "EPERM"),
    "ask for its parent": ("os.kill(os.getppid(), 0)", "EPERM"),
    "signal its group": ("os.kill(0, signal.SIGTERM)", "EPERM"),
    "signal everybody": ("os.kill(-1, signal.SIGTERM)", "EPERM"),
    "signal a parent's thread": ("call(NUMBER['tgkill'], os.getppid(), os.getppid(), 15)", "EPERM"),
    "signal through a handle": ("os.pidfd_open(os.getppid())", "EPERM"),
    "signal through a descriptor": ("fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())", "EPERM"),
    "type into a terminal": ("fcntl.ioctl(1, termios.TIOCSTI, b'x')", "EPERM"),
    "fork": ("os.fork()", "EPERM"),
    "vfork": ("os.posix_spawn('/bin/true', ['true'], {})", "EPERM"),
    "execute": ("os.execv('/bin/true', ['true'])", "EPERM"),
    "execute itself": ("os.execv(sys.executable, ['python'])", "EPERM"),
    "trace its parent": ("call(NUMBER['ptrace'], 16, os.getppid(), 0, 0)", "EPERM"),
    "read its parent": ("call(NUMBER['process_vm_readv'], os.getppid(), 0, 0, 0, 0, 0)", "EPERM"),
    "limits of its parent": ("resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))", "EPERM"),
    "its own limits": ("resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "EPERM"),
    "mount": ("call(NUMBER['mount'], b'none', b'/tmp', b'tmpfs', 0, 0)", "EPERM"),
    "namespace": ("call(NUMBER['unshare'], 0x10000000)", "EPERM"),
    "new root": ("os.chroot(folder)", "EPERM"),
    "io_uring": ("call(425, 8, bytes(120))", "EPERM"),
    "bpf": ("call(NUMBER['bpf'], 0, 0, 0)", "EPERM"),
    "keys": ("call(NUMBER['keyctl'], 0, -3, 1)", "EPERM"),
    "shared memory": ("call(NUMBER['shmget'], 0, 4096, 0o1777)", "EPERM"),
    "memory files": ("os.memfd_create('x')", "EPERM"),
    "name of the machine": ("socket.sethostname('x')", "EPERM"),
    "another user": ("os.setuid(os.getuid() + 1)", "EPERM"),
}
#: What stays possible.
ALLOWED = {
    "read what it may": "assert (folder / 'readable' / 'file').read_text() == 'known'",
    "list what it may": "assert os.listdir(folder / 'readable') == ['file']",
    "write where it may": "(folder / 'writable' / 'new').write_text('x' * 1000)",
    "cut where it may": "(folder / 'writable' / 'new').write_text('')",
    "folders where it may": "(folder / 'writable' / 'deep').mkdir(); (folder / 'writable' / 'deep').rmdir()",
    "remove where it may": "(folder / 'writable' / 'new').unlink()",
    "compute": "assert sum(range(1000)) == 499500",
    "chance": "assert len(os.urandom(8)) == 8",
    "signal itself": "signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), signal.SIGUSR1)",
    "see its limits": "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)",
    "ask for a terminal": "assert not os.isatty(0)",
}
AS_NOBODY = """
os.chmod(folder, 0o755)
for path in (folder / "secret", folder / "readable" / "file", folder / "readable", folder / "writable"):
    os.chown(path, 65534, 65534)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
libc.prctl(4, 1, 0, 0, 0)  # its own /proc/self again
"""


#: Of this processor, by name.
NUMBERS = {
    name: numbers[landlock._MACHINES.get(platform.machine(), (0, 0))[1]]
    for name, numbers in {**landlock._CALLS, **landlock._JUDGED}.items()
}
PROBES = {name: code for name, (code, _) in DENIED.items()} | ALLOWED


def child(folder: Path, code: str, *, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
    for name in ("readable", "writable"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "readable" / "file").write_text("known")
    (folder / "secret").write_text("secret")
    if not (way_out := folder / "writable" / "way_out").is_symlink():
        way_out.symlink_to(folder / "secret")
    return subprocess.run(
        [sys.executable, "-I", "-c", START + f"NUMBER = {NUMBERS}\n" + code, str(folder)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def outcomes(folder: Path, user: str) -> Mapping[str, Any]:
    """What came of every probe, all in one child: an error's name, or "done"."""
    code = f"""
{AS_NOBODY if user == "nobody" else ""}
probes = {PROBES!r}
compiled = {{name: compile(code, name, "exec") for name, code in probes.items()}}
confine(readable=[folder / "readable"], writable=[folder / "writable"])
said = {{}}
for name, code in compiled.items():
    try:
        exec(code, globals())
        said[name] = "done"
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, repr(error))
    except ValueError as error:  # resource says so of a limit that may not rise
        said[name] = "EPERM" if "not allowed" in str(error) else repr(error)
    except BaseException as error:
        said[name] = repr(error)
print(json.dumps(said))
"""
    done = child(folder, code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


USERS = (
    "myself",
    pytest.param(
        "nobody", marks=pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
    ),
)


@pytest.fixture(params=USERS, scope="module")
def said(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Any]]:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to nobody
        folder = Path(made)
        said = outcomes(folder, request.param)
        assert (folder / "secret").read_text() == "secret"
        assert (folder / "readable" / "file").read_text() == "known"
        assert sorted(path.name for path in folder.iterdir()) == ["readable", "secret", "writable"]
        assert [path.name for path in (folder / "writable").iterdir()] == ["way_out"]
        yield said


@pytest.mark.parametrize("name", DENIED)
def test_walls_hold(said: Mapping[str, Any], name: str) -> None:
    assert said[name] in DENIED[name][1].split()


def test_what_may_be_done_is_done(said: Mapping[str, Any]) -> None:
    assert {name: said[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")


def test_without_walls_the_probes_do_what_they_try(tmp_path: Path) -> None:
    """So that it is the wall that stops them: some that harm nobody."""
    harmless = (
        "read", "read accounts", "write outside", "make", "mode", "TCP", "UDP", "ask for its parent", "fork",
        "memory files", "cut", "list",
    )  # fmt: skip
    code = "".join(
        f"""
try:
    {"if os.fork() == 0: os._exit(0)" if name == "fork" else PROBES[name]}
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
        for name in harmless
    )
    said = dict(zip(harmless, child(tmp_path, code).stdout.split(), strict=True))
    assert said == {**dict.fromkeys(harmless, "done"), "TCP": "ECONNREFUSED"}


@pytest.mark.parametrize(
    ("code", "out", "ended"),
    [
        # as root, too, for whom RLIMIT_NPROC does not count
        ("n = 0\nwhile True:\n try: os.fork(); n += 1\n except OSError: break\nprint(n)", "0", 0),
        ("try: bytearray(300 << 20)\nexcept MemoryError: print('bounded')", "bounded", 0),
        ("bytearray(100 << 20); print('fits')", "fits", 0),
        pytest.param("while True: pass", "", -9, marks=pytest.mark.slow),
        (
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "try: (folder / 'writable' / 'big').write_bytes(b'x' * (2 << 20))\n"
            "except OSError as error: print(error.errno == errno.EFBIG)",
            "True",
            0,
        ),
        (
            "try:\n while True: os.open(folder, 0)\nexcept OSError as error: print(error.errno)",
            "24",
            0,
        ),
        ("try: threading.Thread(target=print).start()\nexcept RuntimeError: print('none')", "none", 0),
    ],
)
def test_bounds(tmp_path: Path, code: str, out: str, ended: int) -> None:
    limits = "memory_bytes=200 << 20, cpu_s=1, file_bytes=1 << 20, open_files=20"
    done = child(tmp_path, f"confine(readable=[folder], writable=[folder / 'writable'], {limits})\n{code}")
    assert (done.stdout.strip(), done.returncode) == (out, ended), done.stderr


def test_threads_where_they_are_allowed(tmp_path: Path) -> None:
    code = """
confine(readable=[], threads=True)
one = threading.Thread(target=print, args=("ran",)); one.start(); one.join()
try: os.fork()
except PermissionError: print("alone")
"""
    assert child(tmp_path, code).stdout.split() == ["ran", "alone"]


def test_descriptors_that_are_not_kept_are_closed(tmp_path: Path) -> None:
    code = """
kept = os.open(folder / "secret", os.O_RDONLY)
other = os.open(folder / "secret", os.O_RDWR)
confine(readable=[], keep=(0, 1, 2, kept))
print(os.read(kept, 99).decode())
try: os.read(other, 99)
except OSError as error: print(error.errno == errno.EBADF)
"""
    assert child(tmp_path, code).stdout.split() == ["secret", "True"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("confine(readable=[folder / 'nowhere'])", "nowhere: No such file or directory"),
        ("confine(readable=[], cpu_s=0)", "cpu_s 0, .* give numbers above 0"),
        (
            "wait = threading.Event(); one = threading.Thread(target=wait.wait); one.start()\n"
            "try: confine(readable=[])\nfinally: wait.set()",
            "this process has 2 threads",
        ),
    ],
)
def test_what_cannot_be_confined_is_refused(tmp_path: Path, code: str, error: str) -> None:
    done = child(tmp_path, code)
    assert done.returncode == 1
    assert re.search(f"SandboxError: .*{error}", done.stderr)


#: A filter of its own that says of one call what a kernel without it says.
OLDER_KERNEL = """
from testbench_dagster.sandbox import landlock
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, {call}), (6, 0, 0, 0x50000 | {error}), (6, 0, 0, 0x7FFF0000)]
landlock._no_new_privileges()
landlock._seccomp(b"".join(struct.pack("=HBBI", *step) for step in steps))
print(landlock.probe())
try: confine(readable=[])
except Exception as error: print(type(error).__name__)
try: (folder / 'secret').read_text(); print("not confined")
except OSError: print("confined in part")
"""


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        (444, 38, "offers no Landlock: Function not implemented"),
        (444, 95, r"offers no Landlock: is not switched on \(kernel option lsm=\)"),
        (446, 1, "was not held back: .*Landlock: Operation not permitted"),
        (157, 22, "offers no seccomp filters"),
    ],
)
def test_a_kernel_without_it_is_told_and_rlimits_alone_are_refused(
    tmp_path: Path, call: int, error: int, reason: str
) -> None:
    if call == 157:
        call = 157 if landlock._column() == 0 else 167  # prctl
    said = child(tmp_path, OLDER_KERNEL.format(call=call, error=error)).stdout.splitlines()
    assert re.search(reason, said[0])
    assert said[1:] == ["SandboxError", "not confined"]


def test_other_systems_and_processors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock.platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match="'riscv64' are not known here; use x86-64 or 64-bit ARM"):
        landlock.confine(readable=[])
    monkeypatch.setattr(landlock.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="this is darwin; use a Linux machine"):
        landlock.confine(readable=[])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_program_fits_every_processor(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every jump lands on a step behind it, and the last step returns."""
    monkeypatch.setattr(landlock.platform, "machine", lambda: machine)
    steps = [*landlock.struct.iter_unpack("=HBBI", landlock.filter_program(threads=True))]
    assert len(steps) <= 4096
    assert steps[-1] == (0x06, 0, 0, 0x7FFF0000)
    for at, (code, yes, no, _) in enumerate(steps):
        if code in (0x15, 0x35):
            assert max(at + 1 + yes, at + 1 + no) < len(steps)


HEADERS = {0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 1: "/usr/include/asm-generic/unistd.h"}


@pytest.mark.parametrize("column", HEADERS)
def test_numbers_are_those_of_the_kernels_headers(column: int) -> None:
    if not (header := Path(HEADERS[column])).is_file():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    text = header.read_text("ascii")
    known = {m[1]: int(m[2]) for m in re.finditer(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", text)}
    tables = {**landlock._CALLS, **landlock._TOO_NEW, **landlock._JUDGED, "capset": landlock._CAPSET}
    assert {name: numbers[column] for name, numbers in tables.items()} == {
        name: known.get(name, -1) for name in tables
    }


@pytest.mark.slow
def test_confining_takes_a_few_milliseconds(tmp_path: Path) -> None:
    began = time.perf_counter()
    done = child(
        tmp_path, "t = time.perf_counter(); confine(readable=[folder]); print(time.perf_counter() - t)"
    )
    assert float(done.stdout) < min(0.1, time.perf_counter() - began)
