"""What runs inside of the sandbox: sets the limits, takes the program from a pipe, says how it ended.

Its text is given to a Python of its own (``python -c``), so it uses the standard library alone. It is there
before the program is, and the program can do with this process whatever Python lets it do. So what has to be
out of its reach is not kept where Python shows it:

* The token that a passed check is told with is read from the pipe before the program begins, and from then on
  lies on the interpreter's stack alone: no variable, container or descriptor has it.
* What is needed afterwards is looked up before: names that a program gives other values mean nothing.
* Answer and checks are compiled apart before either runs. So an answer cannot swallow the checks in an open
  text, or jump over them.
* Tracing, frames of other threads, lists of all objects, code that no compiler made, further interpreters and
  the foreign function interface end the program, or are not there.

What remains is said in `docs/code.md`.
"""

from __future__ import annotations

import _frozen_importlib  # that is always there
import builtins
import os
import resource
import sys
import types

TYPE_CHECKING = False  # as typing has it, whose import takes a third of the time to start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Exit codes: what the program did that none may, and that it was through with what it had to do.
FORBIDDEN, WRONG = 86, 87
TOKEN_BYTES = 32
_TOLD = 300
_NEVER = frozenset(
    {
        "sys.settrace",
        "sys.setprofile",
        "sys.monitoring.register_callback",
        "sys.addaudithook",
        "sys._current_frames",
        "sys._current_exceptions",
        "gc.get_objects",
        "gc.get_referrers",
        "gc.get_referents",
        "code.__new__",
        "cpython.PyInterpreterState_New",
    }
)
#: Beginnings of modules that show memory, or an interpreter without these rules.
_HIDDEN = ("_ctypes", "_interp", "_test", "_xx")
#: Bytes before the code in a compiled file.
_PYC_HEAD = 16


def set_limits(cpu_s: int, memory: int, file_bytes: int, open_files: int, threads: int) -> None:
    """Bound this process for good; the second that is left over after SIGXCPU ends who ignores it."""
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, open_files, open_files),
        (resource.RLIMIT_NPROC, threads, threads),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        most = resource.getrlimit(which)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(which, (soft, hard))


def forbid(folders: tuple[str, ...]) -> None:
    """End the process at what no program needs and tricks do; machine code is loaded from ``folders`` alone.

    What the hook uses are its parameters: names that a program gives other values mean nothing to it, nor do
    changes of a frame of it that an error's traceback shows.
    """

    def hook(
        event: str,
        arguments: tuple[Any, ...],
        *,
        end: Callable[[int], Any] = os._exit,
        never: Callable[[object], bool] = _NEVER.__contains__,
        starts: Callable[..., bool] = str.startswith,
        find: Callable[[str, str], int] = str.find,
        last: Callable[[str, str], tuple[str, str, str]] = str.rpartition,
        frame: Callable[[int], Any] = sys._getframe,
        opened: Callable[[str, int], int] = os.open,
        read: Callable[[int, int], bytes] = os.read,
        close: Callable[[int], None] = os.close,
        length: Callable[[bytes], int] = len,
        error: type[ImportError] = ImportError,
        frozen: object = _frozen_importlib.FrozenImporter.exec_module.__code__,
    ) -> None:
        if never(event) or starts(event, "ctypes."):
            end(FORBIDDEN)
        if event == "import":
            name, path = arguments[0], arguments[1]
            elsewhere = path is not None and (not starts(path, folders) or find(path, "/../") >= 0)
            if elsewhere or starts(last(name, ".")[2], _HIDDEN):
                raise error(f"{name} is not there")
        elif event == "marshal.loads" and frame(2).f_code is not frozen:
            # code objects that no compiler made can read all memory: only those of Python's own files
            path = frame(2).f_locals.get("bytecode_path", "")
            if not starts(path, folders) or find(path, "/../") >= 0:
                end(FORBIDDEN)
            descriptor = opened(path, 0)
            found = read(descriptor, length(arguments[0]) + _PYC_HEAD + 1)
            close(descriptor)
            if found[_PYC_HEAD:] != arguments[0]:
                end(FORBIDDEN)

    sys.addaudithook(hook)


def keep_code_as_compiled() -> None:
    """Let ``types.coroutine``, which asyncio needs, wrap generators: its other way makes code objects."""

    def coroutine(func: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            made = func(*arguments, **named)
            return wrapper(made) if isinstance(made, types.GeneratorType) else made

        return wrapped

    wrapper = types._GeneratorWrapper  # type: ignore[attr-defined]
    types.coroutine = coroutine  # type: ignore[assignment]


def take(count: int) -> bytes:
    """So many bytes of what was sent; not one more is read."""
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 16))
        if not part:
            os._exit(1)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def told(error: BaseException) -> bytes:
    """What was raised, bounded; its text is made by the program, which may do anything meanwhile."""
    try:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return text[:_TOLD].encode("utf-8", "replace")
    except BaseException:
        return type(error).__name__[:_TOLD].encode("utf-8", "replace")


def judge(answer: str, checks: str, channel: int) -> None:
    """Run both; on ``channel`` goes the token where the checks ran to their end, else what was raised."""
    end, say, execute, take_token, say_why = os._exit, os.write, exec, take, told
    try:
        # as lm-eval runs them: what is no program together is none
        compile(f"{answer}\n{checks}", "<program>", "exec")
        first = compile(f"{answer}\n\n", "<answer>", "exec")
        second = compile(checks, "<checks>", "exec")
    except BaseException as error:
        say(channel, b"F" + say_why(error))
        end(WRONG)
    space: dict[str, Any] = {}
    own = builtins.__dict__
    clear, update, put, there = own.clear, own.update, space.__setitem__, ("__builtins__", builtins)
    before = tuple(own.items())
    try:
        # One expression: what is called and given stands on the interpreter's stack before the answer runs,
        # as it is loaded from left to right. To a variable, or a cell of a function, that a frame shows, the
        # answer could give another value. All that is called gives None, and `[x].__getitem__(None or 0)` is
        # x. From the inside: the answer runs, Python's own names are as before, the checks run, it is told.
        say(
            channel,
            b"P"
            + take_token(TOKEN_BYTES)
            + [b""].__getitem__(
                execute(
                    second,
                    [space].__getitem__(
                        put(
                            *[there].__getitem__(
                                update([before].__getitem__(clear(*(execute(first, space) or ())) or 0)) or 0
                            )
                        )
                        or 0
                    ),
                )
                or 0
            ),
        )
    except BaseException as error:
        say(channel, b"F" + say_why(error))
        end(WRONG)
    end(0)


def run(program: str, channel: int) -> None:
    """Run a program by itself; on ``channel`` goes what it raised."""
    space = {"__name__": "__main__", "__builtins__": builtins}
    try:
        exec(compile(program, "<program>", "exec"), space)  # noqa: S102  # in the sandbox
    except SystemExit:
        raise
    except BaseException as error:
        os.write(channel, b"F" + told(error))
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stdout.flush()
        os._exit(WRONG)
    os.write(channel, b"D")


def main() -> None:
    """Take limits and program, and run it."""
    mode, folder, packages, *numbers = sys.argv[1:]
    channel, *sizes = (int(number) for number in numbers[:3])
    limits = [int(number) for number in numbers[3:]]
    first, second = (take(size).decode("utf-8", "surrogatepass") for size in sizes)
    sys.argv[:] = [""]
    sys.path[:] = [entry for entry in sys.path if entry]  # not the folder that it may write into
    if packages:
        sys.path.append(packages)
    os.chdir(folder)
    set_limits(*limits)
    os.write(channel, b"S")
    if mode == "judge":
        os.dup2(1, 2)  # what went wrong outside would have been said there until now
        keep_code_as_compiled()
        forbid(tuple(f"{entry}/" for entry in sys.path))
        judge(first, second, channel)
    else:
        run(first, channel)


if __name__ == "__main__":
    main()
