"""Confines the process that asks for it: Landlock, seccomp, no capabilities, rlimits. No package, no root.

What holds after :func:`confine`, for this process and whatever it might start:

* No file is written, made, removed or renamed outside ``writable``; none is read and no folder listed outside
  ``readable`` and ``writable``; nothing is executed but what is below ``executable``.
  Modes, owners, times and attributes of files stay as they are. That a path exists, its size and its times
  may still be seen by who guesses it (Landlock does not
  cover ``stat``).
* No socket of any kind is made, so neither TCP nor UDP nor a server behind a path is reached.
* No process is started, not even by root, for whom RLIMIT_NPROC does not count; threads only where allowed.
* No signal reaches another process; none is traced, read or written to.
* No mounts, namespaces, keys, kernel programs, io_uring, shared memory or queues of System V and POSIX.
* Memory, CPU time, sizes of files and numbers of descriptors are bounded. Time by the clock is not: whoever
  started the process kills it.

Rlimits alone hold none of the first five, so where the kernel lacks Landlock this refuses. Landlock
(Linux 5.13) is asked for its version, never assumed; the system calls and structures are those of the
kernel's Documentation/userspace-api/landlock.rst and seccomp_filter.rst, the numbers those of its unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testbench_dagster.core.errors import SandboxError

# ------------------------------------------------------------------------------------ the kernel's numbers

#: Names of processors as ``uname`` says them: AUDIT_ARCH, and the column of :data:`_CALLS`.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: System calls by name: the number on x86-64 and on 64-bit ARM; -1 where there is none.
_CALLS = {
    # other processes: started, traced, looked into, changed
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    # signals; kill and tgkill are below, as one may end oneself
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    # sockets, and what an inherited one could do
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # mounts and namespaces, and files by other ways than paths
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "unshare": (272, 97),
    "setns": (308, 268),
    # ways around these rules, or into the kernel
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_add_watch": (254, 27),
    "lookup_dcookie": (212, 18),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "modify_ldt": (154, -1),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "personality": (135, 92),
    # the machine
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    # memory that RLIMIT_AS does not count, and what outlives the process
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # what Landlock does not cover of files: modes, owners, times, attributes; and truncation before its ABI 3
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
    "mknod": (133, -1),
    "mknodat": (259, 33),
}
#: Answered as if the kernel did not have them, so that libraries take the older way, whose arguments show.
_TOO_NEW = {"clone3": (435, 435), "openat2": (437, 437)}
#: From this number on no call is let through: what came later than this list was never looked at. It covers
#: the numbers of x86-64's other calling convention (x32), too.
_FIRST_UNKNOWN = 449
#: Those of which an argument decides.
_JUDGED = {
    "clone": (56, 220),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "open": (2, -1),
    "openat": (257, 56),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
}
_CAPSET = (126, 91)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

_CLONE_THREAD = 0x10000
_ACCESS_MODE = os.O_ACCMODE
#: To whom a descriptor's signals go, and watches and leases on files.
_FCNTL_DENIED = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
#: Is it a terminal, how wide, how much is there to read, closed on exec, blocking: nothing else of a device.
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451, 0x5421)

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_CAPABILITY_VERSION_3 = 0x20080522

# Landlock's rights, by the ABI that brought them
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_DIR, _MAKE_REG, _REMOVE_DIR, _REMOVE_FILE = 1 << 7, 1 << 8, 1 << 4, 1 << 5
_ABI_1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # ABI 2, 3, 5
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 1 | 2  # ABI 4: bind, connect
_SCOPES = 1 | 2  # ABI 6: abstract sockets, signals

# classic BPF: the few instructions needed
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

_MIB = 1 << 20
_PROBE_S = 20.0


# ------------------------------------------------------------------------------------ what is offered


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What holds for this process from now on. ``abi``: Landlock's version here."""

    abi: int
    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    memory_bytes: int
    cpu_s: float
    file_bytes: int
    open_files: int
    threads: bool


def probe() -> str | None:
    """Whether :func:`confine` holds on this machine: None, or in one sentence why not.

    A child process confines itself and tries to break out, once in the life of the calling process (about
    0.1 s).
    """
    return _probed()


def confine(
    *,
    readable: Sequence[Path],
    writable: Sequence[Path] = (),
    executable: Sequence[Path] = (),
    memory_bytes: int = 512 * _MIB,
    cpu_s: float = 5.0,
    file_bytes: int = 8 * _MIB,
    open_files: int = 64,
    threads: bool = False,
    keep: Sequence[int] = (0, 1, 2),
) -> Confinement:
    """Confine this process, for good; it must have one thread, and nothing can be undone.

    ``readable`` and ``writable`` are files and folders with all below them; what is writable is readable,
    too. What is below ``executable`` may take this process's place, with all walls, and is readable; without
    it nothing may. ``memory_bytes`` and ``cpu_s`` are what it may use beyond what it has used;
    ``file_bytes`` the most that one file may hold; ``keep`` the open descriptors that stay, all others are
    closed. What a kept descriptor was opened for stays possible. Where libraries import modules late,
    their folders have to be
    readable.

    Raises:
        SandboxError: it cannot be done here. The process may then be confined in part: end it.
    """
    if problem := _missing():
        raise SandboxError(problem)
    if not 0 < cpu_s < math.inf or memory_bytes < 0 or file_bytes < 0 or open_files < 1:
        raise SandboxError(
            f"cpu_s {cpu_s!r}, memory_bytes {memory_bytes}, file_bytes {file_bytes}, "
            f"open_files {open_files}: give numbers above 0"
        )
    try:
        if (running := len(os.listdir("/proc/self/task"))) != 1:
            raise SandboxError(
                f"this process has {running} threads, and only the calling one would be confined; "
                "confine it before others are started, or fork first"
            )
        used_bytes = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
        open_now = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError as error:
        raise SandboxError(f"/proc/self cannot be read ({error}); mount /proc") from error
    for descriptor in sorted(set(open_now) - set(keep)):
        try:
            os.close(descriptor)
        except OSError:  # the one that listed them is closed already
            continue
    abi = _abi()
    _no_new_privileges()
    _landlock(abi, readable, writable, executable)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for which, most in (
        (resource.RLIMIT_AS, used_bytes + memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + cpu_s)),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        _limit(which, most)
    _drop_capabilities()
    _seccomp(filter_program(threads=threads, harmless={"execve"} if executable else ()))
    return Confinement(
        abi=abi,
        readable=tuple(readable),
        writable=tuple(writable),
        memory_bytes=memory_bytes,
        cpu_s=cpu_s,
        file_bytes=file_bytes,
        open_files=open_files,
        threads=threads,
    )


# ------------------------------------------------------------------------------------ system calls


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """A system call by its number; its result, or the negative error number."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *words))
    return -ctypes.get_errno() if result < 0 else result


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise SandboxError(f"{what}: {os.strerror(-result)}")
    return result


def _abi() -> int:
    """Landlock's version; a negative error number where the kernel has none or was started without it."""
    return _call(_CREATE_RULESET, None, 0, 1)


def _missing() -> str | None:
    """What confining needs and this machine does not have, in one sentence; looks, and changes nothing."""
    if sys.platform != "linux":
        return f"Landlock is part of Linux, and this is {sys.platform}; use a Linux machine"
    machine = platform.machine()
    if not knows_machine() or sys.maxsize < 1 << 32 or sys.byteorder != "little":
        return f"the system calls of the processor {machine!r} are not known here; use x86-64 or 64-bit ARM"
    if (abi := _abi()) < 1:
        why = "is not switched on (kernel option lsm=)" if abi == -errno.EOPNOTSUPP else os.strerror(-abi)
        return (
            f"this kernel ({platform.release()}) offers no Landlock: {why}; use Linux 5.13 or newer with "
            "landlock among its security modules, and a container whose seccomp profile allows it"
        )
    # asked for an unreadable filter, a kernel that has filters says EFAULT
    if _libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, 0, 0, 0) == 0 or ctypes.get_errno() != errno.EFAULT:
        return f"this kernel ({platform.release()}) offers no seccomp filters; use one built with them"
    return None


def _no_new_privileges() -> None:
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise SandboxError(f"no_new_privs: {os.strerror(ctypes.get_errno())}")


def _landlock(
    abi: int, readable: Sequence[Path], writable: Sequence[Path], executable: Sequence[Path]
) -> None:
    handled = _ABI_1 | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    handled |= _IOCTL_DEV if abi >= 5 else 0
    # a kernel takes the structure as long as it knows it
    words = [handled, *([_TCP] if abi >= 4 else []), *([_SCOPES] if abi >= 6 else [])]
    attributes = struct.pack(f"={len(words)}Q", *words)
    rules = _checked("Landlock's rules", _call(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        read = _READ_FILE | _READ_DIR
        write = read | _WRITE_FILE | _TRUNCATE | _MAKE_DIR | _MAKE_REG | _REMOVE_DIR | _REMOVE_FILE | _REFER
        for paths, rights in ((readable, read), (writable, write), (executable, read | _EXECUTE)):
            for path in paths:
                _allow(rules, path, rights & handled)
        _checked("Landlock", _call(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"{path}: {error.strerror}; name files and folders that there are") from error
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(f"{path}: Landlock's rule", _call(_ADD_RULE, rules, 1, rule, 0))
    finally:
        os.close(descriptor)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _drop_capabilities() -> None:
    """Root without its capabilities is nobody in particular, but for the files that root owns."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked("capset", _call(_CAPSET[_column()], header, bytes(24)))


def _column() -> int:
    return _MACHINES[platform.machine()][1]


# ------------------------------------------------------------------------------------ the filter


def knows_machine() -> bool:
    """Whether the numbers of this processor's system calls are known."""
    return platform.machine() in _MACHINES


def filter_program(
    *, threads: bool, harmless: Collection[str] = (), judged: Collection[str] = tuple(_JUDGED)
) -> bytes:
    """A seccomp program in the kernel's format (struct sock_filter), for this machine.

    What is named is refused, the calls that are ``judged`` by their arguments, the rest is allowed.

    Args:
        threads: more of the same process may be started, never another one.
        harmless: refused calls that are allowed all the same; what else bounds them the caller knows.
        judged: the calls that are looked at; others of :data:`_JUDGED` are allowed.
    """
    arch, column = _MACHINES[platform.machine()]
    program = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _FIRST_UNKNOWN),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    refused = {name: numbers for name, numbers in _CALLS.items() if name not in harmless}
    for calls, error in ((refused, errno.EPERM), (_TOO_NEW, errno.ENOSYS)):
        for numbers in calls.values():
            if numbers[column] >= 0:
                program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ERRNO | error)]
    for name, numbers in _JUDGED.items():
        if name in judged and numbers[column] >= 0:
            block = [*_judgement(name, threads=threads)]
            program += [(_EQUAL, 0, len(block), numbers[column]), *block]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _judgement(name: str, *, threads: bool) -> Iterator[tuple[int, int, int, int]]:
    """How the arguments of one call decide. The kernel reads the lower half of each of these arguments."""
    allow, refuse = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)

    def load(argument: int) -> tuple[int, int, int, int]:
        return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)

    if name == "clone":
        # more of the same process, never another one
        yield from (load(0), (_AND, 0, 0, _CLONE_THREAD), (_EQUAL, 0, 1, 0), refuse)
        yield allow if threads else refuse
    elif name in {"kill", "tgkill", "prlimit64"}:
        # oneself, which stays the same process as no other is started; 0 is the own group of kill
        yield from (load(0), (_EQUAL, 0, 1, os.getpid()), allow)
        yield from ((_EQUAL, 0, 1, 0), allow) if name == "prlimit64" else ()
        yield refuse
    elif name in {"open", "openat"}:
        # cut to nothing by who opens it to read, or for neither: Landlock before ABI 3 lets it
        flags = load(1 if name == "open" else 2)
        yield from (flags, (_AND, 0, 0, os.O_TRUNC | _ACCESS_MODE))
        for mode in (os.O_RDONLY, _ACCESS_MODE):
            yield from ((_EQUAL, 0, 1, os.O_TRUNC | mode), refuse)
        yield allow
    elif name == "fcntl":
        yield load(1)
        for command in _FCNTL_DENIED:
            yield from ((_EQUAL, 0, 1, command), refuse)
        yield allow
    else:
        yield load(1)
        for command in _IOCTL_ALLOWED:
            yield from ((_EQUAL, 0, 1, command), allow)
        yield refuse


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _seccomp(steps: bytes) -> None:
    program = _Program(len(steps) // 8, steps)
    if _libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise SandboxError(f"seccomp: {os.strerror(ctypes.get_errno())}")


# ------------------------------------------------------------------------------------ does it hold here?


@cache
def _probed() -> str | None:
    if problem := _missing():
        return problem
    with tempfile.TemporaryDirectory(prefix="testbench-probe-") as folder:
        canary = Path(folder, "canary")
        canary.write_text("alive", "utf-8")
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import try_out; try_out(sys.argv[1])"
        try:
            done = subprocess.run(  # noqa: S603  # this Python with our own code
                [sys.executable, "-c", code, str(canary)],
                capture_output=True,
                text=True,
                timeout=_PROBE_S,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"a process that confines itself could not be tried out ({error}); free the machine"
        said = (done.stdout or done.stderr).strip().splitlines()
        if done.returncode or not said or said[-1] != "holds" or canary.read_text("utf-8") != "alive":
            last = said[-1] if said else f"exit code {done.returncode}"
            return f"a process that confined itself here was not held back: {last}"
    return None


def try_out(path: str) -> None:
    """Confine this process, try what it must not, and print ``holds`` or what did not. For :func:`probe`."""
    confine(readable=())

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    tries = {
        "write a file": lambda: Path(path).write_text("dead", "utf-8"),
        "make a file": lambda: Path(f"{path}.more").touch(),
        "read a file": lambda: Path(path).read_text("utf-8"),
        "change a mode": lambda: Path(path).chmod(0o600),
        "remove a file": lambda: Path(path).unlink(),
        "TCP": lambda: socket.socket(),
        "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "signal its parent": lambda: os.kill(os.getppid(), signal.SIGCONT),
        "start a process": fork,
    }
    for what, attempt in tries.items():
        try:
            attempt()
        except PermissionError:
            continue
        except Exception as error:  # anything else is no wall
            print(f"{what}: {type(error).__name__}: {error}")
        else:
            print(f"it could {what}")
        return
    print("holds")
