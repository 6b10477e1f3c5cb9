"""The system calls that a program in bubblewrap is refused, as a filter that `bwrap --seccomp` takes.

Namespaces hide files, processes and networks; what they leave are other processes of its own (memory and CPU
time are bounded per process), memory that RLIMIT_AS does not count, and calls into rarely used parts of the
kernel. The list is that of :mod:`~testbench_dagster.sandbox.landlock`, but for what its own folder and
its own memory make harmless, and for `execve`, by which its Python is started.
"""

from __future__ import annotations

from testbench_dagster.sandbox import landlock

#: Of that list, what a program may do here: it is alone with a folder of its own, and without a network pairs
#: of sockets (asyncio makes one for itself) lead nowhere.
_HARMLESS = frozenset(
    {
        *("execve", "socketpair", "sendto", "sendmsg", "tkill", "setpriority", "sched_setaffinity"),
        *("chmod", "fchmod", "fchmodat", "utime", "utimes", "futimesat", "utimensat", "truncate"),
    }
)


def filter_program() -> bytes:
    """The filter, in the kernel's format, for this machine: threads alone may be started."""
    return landlock.filter_program(threads=True, harmless=_HARMLESS, judged=("clone",))
