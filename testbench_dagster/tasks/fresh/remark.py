"""What of this machine keeps fresh items from being judged in full."""

from __future__ import annotations


def remark() -> str | None:
    """Why the generators' own checks are not asked here; None where they are."""
    # with ctypes and sockets: 10 ms, and a child process for 0.1 s
    from testbench_dagster.sandbox.landlock import probe

    problem = probe()
    if problem is None:
        return None
    return (
        f"answers are right only where they equal the item's in another writing; its generator's own check, "
        f"which takes other forms too, is not run without a sandbox: {problem}"
    )
