"""Command ``init``: a first configuration, for one OpenAI-compatible endpoint."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import click
import yaml

from testbench_dagster.cli.output import note
from testbench_dagster.config import DEFAULT_CONFIG_NAME, load_config_text
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.stores.files import writing

_URL, _MODEL, _KEY = "https://api.example.com/v1", "some-model", "MY_SUPPLIER_KEY"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TEMPLATE = """\
# Who is measured, and on what. Every setting: docs/reference.md; more kinds of servers: docs/suppliers.md.
# `testbench check` says what is wrong with this file or the endpoint, and how to mend it.

suppliers:
  - address: {address}
    base_url: {base_url}  # what stands before /chat/completions
    api: chat  # or completions, which multiple choice by log-probabilities needs
    model: {model}
    {key}  # the name of a variable, never the key
    max_in_flight: 4  # never more requests at once than this

tasks:
  # come with the package, one of eight: starter_arithmetic, starter_calendar, starter_choice, ...
  - name: starter_logic
    samples: {{min: 25, max: 100, half_width: 0.1}}  # as many docs as an interval of ±10 points takes
  # any task, group or tag of lm-eval that YAML defines; its data comes from the Hugging Face hub
  - name: gsm8k
    metric: exact_match
    filter: flexible-extract
    samples: {{min: 25, max: 100, half_width: 0.1}}

budget: {{relays_per_day: 2000}}  # a hard cap, retries included

# how fast it answers, and whether it does: streamed requests of their own, eight a day of each length,
# which no score rests on; `testbench plan` says what they come to
# service_probes: {{enabled: true, per_day: 8, relays_per_day: 20}}
"""


@click.command(short_help="Write a first configuration")
@click.option(
    "--base-url", metavar="URL", help="Where the endpoint is: what stands before /chat/completions."
)
@click.option("--model", metavar="NAME", help="The model to ask it for.")
@click.option("--key-env", metavar="VARIABLE", help="Name of the variable that holds its key; none: no key.")
@click.pass_obj
def init(config: str | None, base_url: str | None, model: str | None, key_env: str | None) -> None:
    """Write a commented testbench.yaml for one OpenAI-compatible endpoint, here or to --config.

    Asks nothing, sends nothing, and overwrites nothing. What is not given stands there as an example.
    """
    path = Path(config or DEFAULT_CONFIG_NAME).absolute()
    if key_env is not None and not _VARIABLE.fullmatch(key_env):
        # what was given may be the key itself: it is not repeated
        raise ConfigError("--key-env is the name of a variable (letters, digits and _), never the key itself")
    text = starter_text(base_url, model, key_env)
    load_config_text(text, path)
    with writing(path, "choose another folder, or name the file with --config"):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise ConfigError(
                f"{path} exists and is left as it is; remove it, or name another file with --config"
            ) from None
    _what_next(path, config, base_url, model, key_env)


def starter_text(base_url: str | None, model: str | None, key_env: str | None) -> str:
    """The configuration as it is written; values that are None stand there as examples."""
    host = urlsplit(base_url or _URL).hostname or "my-supplier" if _is_url(base_url) else "my-supplier"
    address = re.sub(r"[^A-Za-z0-9]+", "-", host.removeprefix("api.")).strip("-") or "my-supplier"
    return _TEMPLATE.format(
        address=_quoted(address if base_url else "my-supplier"),
        base_url=_quoted(base_url or _URL),
        model=_quoted(model or _MODEL),
        key=f"api_key_env: {key_env}" if key_env else f"# api_key_env: {_KEY}",
    )


def _is_url(text: str | None) -> bool:
    try:
        return text is not None and urlsplit(text).hostname is not None
    except ValueError:  # no URL at all: reading the configuration says so
        return False


def _quoted(value: str) -> str:
    """A value as YAML takes it for a text, whatever it looks like."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./:-]*[A-Za-z0-9_/-]", value)
    words = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    if plain and ": " not in value and value.lower() not in words:
        return value
    # one line, whatever it holds
    return yaml.safe_dump(value, default_style='"', width=float("inf")).rstrip("\n")


def _what_next(
    path: Path, config: str | None, base_url: str | None, model: str | None, key_env: str | None
) -> None:
    note(f"written: {path}")
    missing = [name for name, value in (("base_url", base_url), ("model", model)) if value is None]
    if missing:
        note(f"put in your {' and '.join(missing)}; they are examples")
    if key_env is not None:
        note(f"export {key_env} with the key of the endpoint")
    named = "testbench" if config is None else f"testbench -c {config}"
    note(f"then: {named} check, {named} plan, {named} run")
