"""`testbench.yaml`: read, expand `${ENV}`, validate; every error names the key, the value and the remedy.

Nothing here touches a store, a supplier or lm-eval, so that reading the configuration stays cheap enough for
the Dagster code location.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from testbench_dagster.config.fields import HEX_KEY
from testbench_dagster.config.settings import Settings, SupplierConfig
from testbench_dagster.core.errors import ConfigError

CONFIG_ENV = "TESTBENCH_CONFIG"
HOME_ENV = "TESTBENCH_HOME"
MONGO_ENV = "TESTBENCH_MONGO_URI"
POSTGRES_ENV = "TESTBENCH_POSTGRES_URI"
DEFAULT_CONFIG_NAME = "testbench.yaml"
BUILTIN_CONFIG = Path(__file__).parents[1] / "localnet" / "starter.yaml"

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Config:
    """Validated settings with where they came from and where the installation keeps its data."""

    settings: Settings
    path: Path
    home: Path

    @property
    def base(self) -> Path:
        """Folder that relative paths of the configuration refer to."""
        return self.path.parent

    @property
    def mongo_uri(self) -> str | None:
        """URI of the document store, or None for the embedded one."""
        return os.environ.get(MONGO_ENV) or None

    @property
    def postgres_uri(self) -> str | None:
        """URI of the dataset store, or None for the embedded one."""
        return os.environ.get(POSTGRES_ENV) or None

    @property
    def dagster_home(self) -> Path:
        """Folder of Dagster's settings and, without PostgreSQL, its storage: DAGSTER_HOME, else our own."""
        return Path(os.environ.get("DAGSTER_HOME") or self.home / "dagster").absolute()

    @property
    def moves_dagster(self) -> str:
        """The environment variable that says where :attr:`dagster_home` is."""
        return "DAGSTER_HOME" if os.environ.get("DAGSTER_HOME") else HOME_ENV

    def supplier(self, key: str) -> SupplierConfig | None:
        """The configured supplier with this partition key, or None."""
        return self._by_key.get(key)

    @cached_property
    def _by_key(self) -> dict[str, SupplierConfig]:
        return {supplier.key: supplier for supplier in self.settings.suppliers}


def find_config() -> Path:
    """Path of the configuration: ``TESTBENCH_CONFIG``, ``./testbench.yaml``, or the bundled starter one."""
    named = os.environ.get(CONFIG_ENV)
    if named:
        return Path(named)
    local = Path.cwd() / DEFAULT_CONFIG_NAME
    return local if local.exists() else BUILTIN_CONFIG


def load_config(path: Path | str | None = None) -> Config:
    """Read and validate the configuration.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, uses an unset variable, or a key is wrong.
    """
    source = _absolute(Path(path) if path is not None else find_config())
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration at {source}; create it or point {CONFIG_ENV} to one "
            "(testbench demo needs none)"
        ) from None
    except (OSError, ValueError) as error:  # no text in UTF-8, or no name of a file
        raise ConfigError(f"cannot read {source}: {error}") from None
    return load_config_text(text, source)


def load_config_text(text: str, source: Path) -> Config:
    """Validate a configuration that stands, or is to stand, in the file ``source``, an absolute path.

    Raises:
        ConfigError: it is no YAML mapping, uses an unset variable, or a key is wrong.
    """
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  a safe loader, with rules of its own
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_without_keys(_yaml_problem(error))}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{source} must be a mapping with the keys suppliers and tasks")
    expanded = _expand(raw, source, "")
    try:
        settings = Settings.model_validate(expanded)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None
    return Config(settings, source, _home(source))


class _UniqueKeys(yaml.SafeLoader):
    """YAML as usual, but a key given twice is an error: plain PyYAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build one mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"duplicate key {key.value!r}; remove or rename one", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_problem(error: yaml.YAMLError) -> str:
    """Where and what, on one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    begun = getattr(error, "context_mark", None)
    if (  # patterns that begin with what YAML takes for a tag or an alias
        "for the tag '!" in problem
        or "scanning an alias" in str(error)
        or "undefined alias" in problem
        or "[!" in ((begun.get_snippet() if begun else None) or "")
    ):
        problem += "; a text that begins with ! or * stands in quotes"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{path} names the home of a user there is not; write the path out") from None


def installation_home() -> Path:
    """Where the installation of :func:`find_config` keeps its data; its configuration is not read."""
    return _home(_absolute(find_config()))


def _home(source: Path) -> Path:
    named = os.environ.get(HOME_ENV)
    if named:
        return _absolute(Path(named))
    # the bundled configuration lies inside the installed package: its data belongs to the caller's folder
    return (Path.cwd() if source == BUILTIN_CONFIG else source.parent) / ".testbench"


def _expand(value: Any, source: Path, where: str) -> Any:
    if isinstance(value, Mapping):
        prefix = f"{where}." if where else ""
        return {key: _expand(item, source, f"{prefix}{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, source, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name)
        if default is not None:
            found = found or default  # as in a shell, also for a variable that is set but empty
        if found is None:
            raise ConfigError(
                f"{source}: {where}: the environment variable {name} is not set; "
                f"export it or write ${{{name}:-default}}"
            )
        return found

    return _VARIABLE.sub(substitute, value)


_KEYS_ELSEWHERE = (
    "keys are never written in the file: name the variable or the file holding it in key_env or key_file"
)
_HINTS = {
    "key": _KEYS_ELSEWHERE,
    "private_key": _KEYS_ELSEWHERE,
    "api_key": "keys are never written in the file: put the name of the variable holding it in api_key_env",
    "fewshot": "did you mean num_fewshot?",
    "max_gen_toks": "did you mean max_tokens?",
    "until": "did you mean stop?",
    "system_instruction": "did you mean system?",
    "url": "did you mean base_url?",
    "timeout": "did you mean total_s, first_byte_s, idle_s or connect_s?",
}


def _explain(error: ValidationError, source: Path) -> str:
    return "\n".join(f"{source}: {_without_keys(line)}" for line in _problems(error))


def _without_keys(text: str) -> str:
    """Hide what may be a private key that was written in the wrong place: messages end up in logs."""
    return HEX_KEY.sub("(hidden: looks like a key)", text)


def _as_written(location: tuple[int | str, ...]) -> Iterator[int | str]:
    """Keys as they stand in the file: without what pydantic adds about the members of unions."""
    for place, part in enumerate(location):
        of_gate = place >= 2 and location[place - 2] == "gates" and isinstance(location[place - 1], int)
        of_reference = place >= 1 and location[place - 1] == "reference" and part in ("flag", "patterns")
        if not str(part).rstrip("]").endswith("SampleRule") and not of_gate and not of_reference:
            yield part


#: What pydantic calls the members of a union of plain values, in words.
_SCALARS = {"str": "a text", "bool": "true or false", "float": "a number", "int": "a whole number"}


def _of_kinds(place: tuple[int | str, ...], value: Any, error: ValidationError) -> str:
    """What is wrong with a value that may be of several kinds, and is of none."""
    kinds = [str(p["loc"][-1]) for p in error.errors() if p["loc"][:-1] == place and p["loc"][-1] in _SCALARS]
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in _as_written(place)).lstrip(".")
    return f"{where}: {value!r} is not {' or '.join(_SCALARS[kind] for kind in kinds)}; correct it"


def _problems(error: ValidationError) -> Iterator[str]:
    told: set[tuple[int | str, ...]] = set()
    for problem in error.errors():
        if "literal['all']" in problem["loc"]:
            continue  # the other half of a union: the rule's own problems follow
        if problem["loc"][-1:] and problem["loc"][-1] in _SCALARS:  # one of a few kinds of values
            place = problem["loc"][:-1]
            if place not in told:
                told.add(place)
                yield _of_kinds(place, problem.get("input"), error)
            continue
        parts = list(_as_written(problem["loc"]))
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
        kind, value = problem["type"], problem.get("input")
        if kind == "extra_forbidden":
            name = str(parts[-1])
            block = where.rpartition(".")[0]
            hint = _HINTS.get(name) or "remove it or correct its spelling"
            yield f"{where}: unknown key {name!r}{f' in {block}' if block else ''}; {hint}"
        elif kind == "missing":
            yield f"{where}: is required but missing; add it"
        elif kind == "value_error":
            text = str(problem["ctx"]["error"])
            yield f"{where}: {text}" if where else text
        else:
            shown = "" if isinstance(value, (dict, list)) else f" (it is {value!r})"
            remedy = "; write it in quotes" if kind == "string_type" and shown and value is not None else ""
            yield f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}{remedy}"
