"""Exceptions a user may meet; each message names the field, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterator


class TestbenchError(Exception):
    """Base of every error this package raises on purpose."""

    __test__ = False  # pytest: the name starts with "Test", but this is no test class


class ConfigError(TestbenchError):
    """`testbench.yaml`, an environment variable or a command option is wrong."""


class StoreError(TestbenchError):
    """A document or dataset store cannot be opened, read or written."""


class BodyUnavailable(StoreError):
    """The body of an attempt stands outside the document store and cannot be read there now.

    The attempt is as good as it was: whoever needs its body puts that work off.
    """


class UndeclaredField(StoreError, KeyError):
    """A filter, sort, group or projection names a field the collection does not declare."""

    def __str__(self) -> str:
        return str(self.args[0])


class TaskError(TestbenchError):
    """A task is unknown, its data cannot be loaded, or it cannot be built or scored."""


class TaskInputError(TaskError):
    """What `testbench.yaml` wants of a task cannot be had: a data file, split, column, metric or filter."""


class AdapterFailed(TaskError):
    """A function of a framework's adapter raised what no adapter is to raise: a mistake of the framework."""


class SandboxError(TestbenchError):
    """A process cannot be confined here, so what was to run in it does not run."""


class DriftError(TestbenchError):
    """This machine goes by another configuration, or other packages, than the code server."""


class Interrupted(TestbenchError):
    """Somebody asked this process to stop, and what it was doing was ended: no task's fault."""


class ScorerUnavailable(TestbenchError):
    """A metric raises it where the service that it asks is not there: the answer is scored later.

    So do the errors of connections and time limits that Python and common HTTP clients raise. That it is not
    the answer's doing shows at other answers: see docs/scorers.md.
    """


class ShannonError(TestbenchError, ValueError):
    """Base of all errors of this package."""


class KeyMaterialError(ShannonError):
    """A private key, public key or address cannot be used. The text never holds a private key."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of, or came while they were handled; each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__context__, one.__cause__]
