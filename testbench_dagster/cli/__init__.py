"""The ``testbench`` command. Results go to stdout, everything else to stderr; exit codes 0, 1, 2.

0: done. 1: the command could not do its job. 2: wrong usage or configuration.

Belongs here: options, progress bars, output, exit codes; one module per family of commands. Does not: loops
over suppliers or passes, arithmetic, or anything that `Testbench` could not do as well.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

import click

from testbench_dagster import __version__
from testbench_dagster.core.errors import ConfigError, TaskInputError, TestbenchError

#: Each command, in the order of the help, with the module of this package and the name it has there.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("serve", "demo"),
    "up": ("serve", "up"),
    "check": ("evaluate", "check"),
    "run": ("evaluate", "run"),
    "plan": ("plan", "plan"),
    "backfill": ("backfill", "backfill"),
    "scores": ("show", "scores"),
    "taxonomies": ("taxonomies", "taxonomies"),
    "compare": ("compare", "compare"),
    "identity": ("identity", "identity"),
    "leaderboard": ("leaderboard", "leaderboard"),
    "feed": ("leaderboard", "feed"),
    "export": ("show", "export"),
    "evidence": ("evidence", "evidence"),
    "rescore": ("evidence", "rescore"),
    "migrate": ("migrate", "migrate_command"),
    "localnet": ("serve", "localnet"),
    "import-frameworks": ("frameworks", "import_frameworks_command"),
}


class _Commands(click.Group):
    """Imports a command when it is asked for: one that only reads a file need not wait for all the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(import_module(f"{__name__}.{module}"), name)
        assert isinstance(command, click.Command)
        return command


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

    Start with `testbench demo`; it needs no configuration and no network.
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
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ConfigError, TaskInputError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except TestbenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
