"""The ``testbench`` command. Results go to stdout, everything else to stderr; exit codes 0, 1, 2.

0: done. 1: the command could not do its job. 2: wrong usage or configuration.
"""

from __future__ import annotations

import sys

import click

from testbench_dagster import __version__
from testbench_dagster.cli import (
    backfill,
    compare,
    evaluate,
    evidence,
    frameworks,
    identity,
    leaderboard,
    plan,
    serve,
    show,
    taxonomies,
)
from testbench_dagster.errors import ConfigError, TaskInputError, TestbenchError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for command in (
    serve.demo,
    serve.up,
    evaluate.check,
    evaluate.run,
    plan.plan,
    backfill.backfill,
    show.scores,
    taxonomies.taxonomies,
    compare.compare,
    identity.identity,
    leaderboard.leaderboard,
    leaderboard.feed,
    show.export,
    evidence.evidence,
    evidence.rescore,
    serve.localnet,
    frameworks.import_frameworks_command,
):
    cli.add_command(command)


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
