"""The system calls that a program in bubblewrap is refused, as a filter that `bwrap --seccomp` takes.

Namespaces hide files, processes and networks; what they leave are other processes of its own (memory and CPU
time are bounded per process), memory that RLIMIT_AS does not count, and calls into rarely used parts of the
kernel. The list is that of :mod:`~testbench_dagster.sandbox.landlock`, but for what its own folder and
its own memory make harmless, and for `execve`, by which its Python is started.
"""

from __future__ import annotations

import errno
import platform
import struct

from testbench_dagster.sandbox.landlock import (
    _ALLOW,
    _AND,
    _ARCH_AT,
    _ARGUMENTS_AT,
    _AT_LEAST,
    _CALLS,
    _CLONE_THREAD,
    _EQUAL,
    _ERRNO,
    _FIRST_UNKNOWN,
    _JUDGED,
    _KILL,
    _LOAD,
    _MACHINES,
    _NUMBER_AT,
    _RETURN,
    _TOO_NEW,
)

#: Of that list, what a program may do here: it is alone with a folder of its own, and without a network pairs
#: of sockets (asyncio makes one for itself) lead nowhere.
_HARMLESS = frozenset(
    {
        *("execve", "socketpair", "sendto", "sendmsg", "tkill", "setpriority", "sched_setaffinity"),
        *("chmod", "fchmod", "fchmodat", "utime", "utimes", "futimesat", "utimensat", "truncate"),
    }
)


def knows_machine() -> bool:
    """Whether the numbers of this processor's system calls are known."""
    return platform.machine() in _MACHINES


def filter_program() -> bytes:
    """The filter, in the kernel's format (struct sock_filter), for this machine."""
    arch, column = _MACHINES[platform.machine()]
    allow, refuse = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    steps = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _FIRST_UNKNOWN),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for name, numbers in _CALLS.items():
        if name not in _HARMLESS and numbers[column] >= 0:
            steps += [(_EQUAL, 0, 1, numbers[column]), refuse]
    for numbers in _TOO_NEW.values():
        steps += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    # another thread of this process, and neither a process nor a namespace
    thread = [
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        (_AND, 0, 0, _CLONE_THREAD),
        (_EQUAL, 0, 1, 0),
        refuse,
        allow,
    ]
    steps += [(_EQUAL, 0, len(thread), _JUDGED["clone"][column]), *thread, allow]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
