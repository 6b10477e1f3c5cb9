"""Commands of containers, parsed by the programs themselves: nothing is executed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Sequence
from functools import cache
from importlib.metadata import entry_points
from types import SimpleNamespace

import click
from celery import Celery


def problem(command: Sequence[str], mounted: Collection[str] = ()) -> str | None:
    """Why one of our programs would not take a command, or None.

    `sh -c` is looked into: each command between `&&`. Files that are ``mounted`` count as being there.
    """
    if list(command[:2]) == ["sh", "-c"]:
        found = (
            problem(shlex.split(part.strip().removeprefix("exec ")), mounted)
            for part in command[2].split("&&")
        )
        return next((one for one in found if one is not None), None)
    name, *arguments = command
    for path in mounted:
        arguments = [argument.replace(path, os.devnull) for argument in arguments]
    return _refused(name, tuple(arguments))


@cache
def _refused(name: str, arguments: tuple[str, ...]) -> str | None:
    if name not in _PROGRAMS:
        return f"{name} is none of our programs"
    if not any(script.name == name for script in entry_points(group="console_scripts")):
        return f"no installed package has a program {name}"
    said = shlex.join([name, *arguments])
    try:
        _parse(_PROGRAMS[name](), name, arguments)
    except click.exceptions.Exit:  # it would print its help
        return f"{said} does nothing"
    except click.ClickException as error:
        return f"{said}: {error.format_message()}"
    return None


def _parse(program: click.Command, name: str, arguments: Sequence[str]) -> None:
    # celery's commands look at the app that the group has found; the others look at nothing
    context = program.make_context(name, list(arguments), obj=SimpleNamespace(app=Celery()))
    while isinstance(program, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            raise click.UsageError("a command is missing")
        found, sub, rest = program.resolve_command(context, rest)
        assert found is not None and sub is not None
        program, context = sub, sub.make_context(found, rest, parent=context)


def _celery() -> click.Command:
    from celery.bin.celery import celery

    # the app would be imported now, which opens Dagster's instance
    for option in celery.params:
        if option.name == "app":
            option.type = click.STRING
    return celery  # type: ignore[no-any-return]


def _dagster() -> click.Command:
    from dagster._cli import create_dagster_cli

    return create_dagster_cli()


def _daemon() -> click.Command:
    from dagster._daemon.cli import create_dagster_daemon_cli

    return create_dagster_daemon_cli()


def _webserver() -> click.Command:
    from dagster_webserver.cli import dagster_webserver

    return dagster_webserver


def _testbench() -> click.Command:
    from testbench_dagster.cli import cli

    return cli


_PROGRAMS: dict[str, Callable[[], click.Command]] = {
    "celery": _celery,
    "dagster": _dagster,
    "dagster-daemon": _daemon,
    "dagster-webserver": _webserver,
    "testbench": _testbench,
}
