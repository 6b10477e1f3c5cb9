"""The ``testbench`` command. Results go to stdout, everything else to stderr; exit codes 0, 1, 2, 130.

0: done. 1: the command could not do its job. 2: wrong usage or configuration.
130: interrupted.

Belongs here: options, progress bars, output, exit codes; one module per family of commands. Does not: loops
over suppliers or passes, arithmetic, or anything that `Testbench` could not do as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import click

from testbench_dagster import __version__
from testbench_dagster.core.errors import ConfigError, Interrupted, TaskInputError, TestbenchError

#: Each command, in the order of the help, with the module of this package and the name it has there.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("serve", "demo"),
    "init": ("init", "init"),
    "up": ("serve", "up"),
    "board": ("board", "board"),
    "check": ("evaluate", "check"),
    "run": ("evaluate", "run"),
    "tasks": ("tasks", "tasks"),
    "plan": ("plan", "plan"),
    "probe": ("probe", "probe"),
    "backfill": ("backfill", "backfill"),
    "scores": ("show", "scores"),
    "show": ("read", "show"),
    "answers": ("read", "answers"),
    "history": ("read", "history"),
    "service": ("service", "service"),
    "taxonomies": ("taxonomies", "taxonomies"),
    "compare": ("compare", "compare"),
    "identity": ("identity", "identity"),
    "references": ("identity", "references"),
    "twins": ("twins", "twins"),
    "suspicions": ("suspicions", "suspicions"),
    "leaderboard": ("leaderboard", "leaderboard"),
    "feed": ("leaderboard", "feed"),
    "export": ("show", "export"),
    "evidence": ("evidence", "evidence"),
    "rescore": ("evidence", "rescore"),
    "migrate": ("migrate", "migrate_command"),
    "localnet": ("serve", "localnet"),
    "import-frameworks": ("frameworks", "import_frameworks_command"),
}
#: Those that read no configuration.
WITHOUT_CONFIGURATION = frozenset({"demo", "init", "rescore", "localnet", "import-frameworks"})


class _Commands(click.Group):
    """Imports a command when it is asked for: one that only reads a file need not wait for all the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(import_module(f"{__name__}.{module}"), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{__name__}.{module}.{name} is no click command; mend COMMANDS")
        if cmd_name not in WITHOUT_CONFIGURATION and not hasattr(command, "says_what_is_measured"):
            command.callback = _saying_what_is_measured(command.callback)
            command.says_what_is_measured = True  # type: ignore[attr-defined]  # once per process
        return command


def _saying_what_is_measured(callback: Callable[..., Any] | None) -> Callable[..., Any]:
    """A command's work, preceded by a line where nobody named a configuration and there is none here.

    It is said when the command begins, not when its options are wrong or its help is asked for.
    """

    def work(*arguments: Any, **options: Any) -> Any:
        # with the settings, which the command reads anyway
        from testbench_dagster.config import BUILTIN_CONFIG, DEFAULT_CONFIG_NAME, find_config

        root = click.get_current_context().find_root()
        if root.obj is None and find_config() == BUILTIN_CONFIG:
            click.echo(
                f"no {DEFAULT_CONFIG_NAME} here: this is the bundled simulation, seven suppliers that "
                "`testbench localnet up` serves; `testbench init` writes a configuration of your own, -c "
                "names another",
                err=True,
            )
        return callback(*arguments, **options) if callback is not None else None

    return work


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="testbench")
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False),
    envvar="TESTBENCH_CONFIG",
    help="Configuration file (default: ./testbench.yaml, else the bundled starter configuration).",
)
@click.pass_context
def cli(context: click.Context, config: str | None) -> None:
    """Measure language-model suppliers: sample, relay, score, rank, with evidence.

    Start with `testbench demo`, which needs no configuration and no network, or with `testbench init`, which
    writes a configuration of your own.
    """
    context.obj = config


def main() -> None:
    """Run the command line; errors of this package become one message and an exit code."""
    try:
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)  # INTERRUPTED of .interrupts, which not every command imports
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Interrupted as error:
        click.echo(str(error), err=True)
        sys.exit(130)
    except (ConfigError, TaskInputError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except TestbenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
