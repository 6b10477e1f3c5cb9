"""`testbench.yaml`: read, expand `${ENV}`, validate; every error names the key, the value and the remedy.

Nothing here touches a store, a supplier or lm-eval, so that reading the configuration stays cheap enough for
the Dagster code location.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from testbench_dagster.errors import ConfigError
from testbench_dagster.relays.messages import Limits

CONFIG_ENV = "TESTBENCH_CONFIG"
HOME_ENV = "TESTBENCH_HOME"
MONGO_ENV = "TESTBENCH_MONGO_URI"
POSTGRES_ENV = "TESTBENCH_POSTGRES_URI"
DEFAULT_CONFIG_NAME = "testbench.yaml"
BUILTIN_CONFIG = Path(__file__).parent / "localnet" / "starter.yaml"

_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_:-]|\.(?!\.)){0,127}")
_DEFAULTS = Limits()
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class _Strict(BaseModel):
    """Base of every block: unknown keys are refused, values are never changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RelaySettings(_Strict):
    """Bounds on relays; see :class:`testbench_dagster.relays.messages.Limits` for the units."""

    connect_s: float = Field(default=_DEFAULTS.connect_s, gt=0, le=600)
    first_byte_s: float = Field(default=_DEFAULTS.first_byte_s, gt=0, le=86_400)
    idle_s: float = Field(default=_DEFAULTS.idle_s, gt=0, le=86_400)
    total_s: float = Field(default=_DEFAULTS.total_s, gt=0, le=86_400)
    retries: int = Field(default=_DEFAULTS.retries, ge=0, le=20)
    max_response_mb: float = Field(default=_DEFAULTS.max_response_mb, gt=0, le=15)
    max_in_flight: int = Field(default=_DEFAULTS.max_in_flight, ge=1, le=100_000)


class RelayOverrides(_Strict):
    """The same bounds as :class:`RelaySettings` for one supplier; what is unset is inherited."""

    connect_s: float | None = Field(default=None, gt=0, le=600)
    first_byte_s: float | None = Field(default=None, gt=0, le=86_400)
    idle_s: float | None = Field(default=None, gt=0, le=86_400)
    total_s: float | None = Field(default=None, gt=0, le=86_400)
    retries: int | None = Field(default=None, ge=0, le=20)
    max_response_mb: float | None = Field(default=None, gt=0, le=15)
    max_in_flight: int | None = Field(default=None, ge=1, le=100_000)


class SupplierConfig(RelayOverrides):
    """One supplier reached over plain HTTP, with its own relay bounds where they differ."""

    address: str
    service: str = "external"
    transport: Literal["direct"] = "direct"
    base_url: str
    api: Literal["chat", "completions"] = "chat"
    model: str
    api_key_env: str | None = None
    relays: RelayOverrides = RelayOverrides()

    @field_validator("address", "service")
    @classmethod
    def _usable_in_a_partition_key(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot be part of a partition key: use 1 to 128 letters, digits, '_', '-', ':' "
                "or single '.', starting with a letter or digit"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _plain_http_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a malformed host or port
            usable = False
        if "@" in (parts.netloc if usable else value):  # said first: the other messages quote the value
            raise ValueError(
                "a URL may not hold credentials; name the variable holding the key in api_key_env"
            )
        if not usable:
            raise ValueError(f"{value!r} is no http(s) URL; write it like http://host:port/v1")
        if parts.query or parts.fragment:
            raise ValueError(f"{value!r} may not have a query or fragment; write it like http://host:port/v1")
        return value.rstrip("/")

    @property
    def key(self) -> str:
        """Partition key of the supplier: ``<address>@<service>``."""
        return f"{self.address}@{self.service}"

    def limits(self, defaults: RelaySettings) -> Limits:
        """The relay bounds of this supplier: its own where set, the defaults elsewhere.

        A bound may stand in the supplier's ``relays`` block or beside ``base_url``; the latter wins.
        """
        limits = Limits(**defaults.model_dump())
        names = RelayOverrides.model_fields
        nested = self.relays.model_dump(exclude_none=True)
        own = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        return replace(limits, **{**nested, **own})


class SampleRule(_Strict):
    """How many docs of a task each supplier answers per window.

    At least ``min``; then until the 95 % interval of the primary score is at most ``2 * half_width`` wide,
    but no more than ``max``. With ``half_width: null`` always ``max``.
    """

    min: int = Field(default=25, ge=1)
    max: int = Field(default=100, ge=1)
    half_width: float | None = Field(default=0.1, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _ordered(self) -> SampleRule:
        if self.min > self.max:
            raise ValueError(f"min {self.min} exceeds max {self.max}; lower min or raise max")
        return self


class TaskConfig(_Strict):
    """One lm-eval task, or a group or tag that expands to its leaf tasks."""

    name: Annotated[str, Field(min_length=1)]
    alias: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0, le=1000)
    metric: str | None = None
    filter: str | None = None
    data: dict[str, str | dict[str, str]] | None = None
    where: dict[str, str] | None = None
    only: list[str] | None = None
    samples: Literal["all"] | SampleRule = SampleRule()

    @field_validator("samples", mode="before")
    @classmethod
    def _sample_rule(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return {"min": value, "max": value, "half_width": None}
        if value != "all" and not isinstance(value, (dict, SampleRule)):
            raise ValueError(
                f"{value!r} is neither 'all', nor a positive number of docs, "
                "nor a mapping such as {min: 25, max: 100}"
            )
        return value

    @field_validator("data", mode="before")
    @classmethod
    def _files_by_split(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is no mapping; write e.g. {{test: data/test.jsonl.gz}}")
        if not [split for split in value if split != "where"]:
            raise ValueError("names no split; write e.g. {test: data/test.jsonl.gz}")
        for split, path in value.items():
            if split == "where":
                if not isinstance(path, dict) or not all(isinstance(v, str) for v in path.values()):
                    raise ValueError(
                        "where must map columns to texts, such as {subject: '{dataset_name}'}; "
                        "write numbers in quotes"
                    )
            elif not isinstance(path, str) or not path:
                raise ValueError(f"{split!r} must be a path to a .jsonl, .jsonl.gz, .parquet or .csv file")
        return value

    @property
    def files(self) -> dict[str, str] | None:
        """Split name → path pattern of the local data, or None for the Hugging Face hub."""
        if self.data is None:
            return None
        return {split: path for split, path in self.data.items() if isinstance(path, str)}

    @property
    def row_filter(self) -> dict[str, str]:
        """Column → value pattern that picks a leaf's rows (``where``, in the task or inside ``data``)."""
        inside = (self.data or {}).get("where")
        return {**(inside if isinstance(inside, dict) else {}), **(self.where or {})}


class SamplingSettings(_Strict):
    """Age of a sample (days) after which it no longer counts, window size (docs), seed of the epochs."""

    max_age_days: float = Field(default=32, gt=0)
    window: int = Field(default=100, ge=1)
    epoch_seed: int | None = None


class BudgetSettings(_Strict):
    """Hard cap on relays per service and UTC day; None means no cap."""

    relays_per_day: int | None = Field(default=None, ge=0)


class Settings(_Strict):
    """The whole of ``testbench.yaml``."""

    suppliers: list[SupplierConfig] = []
    tasks: list[TaskConfig]
    taxonomies: list[str] = []
    relays: RelaySettings = RelaySettings()
    sampling: SamplingSettings = SamplingSettings()
    budget: BudgetSettings = BudgetSettings()
    services: dict[str, Any] = {}
    task_paths: list[str] = []
    simulation: bool = False

    @field_validator("services")
    @classmethod
    def _no_networks_yet(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value:
            raise ValueError(
                f"{', '.join(value)}: Pocket networks are not supported by this version; "
                "leave services out and list the suppliers under suppliers"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        seen: set[str] = set()
        for position, supplier in enumerate(self.suppliers):
            if supplier.key in seen:
                raise ValueError(
                    f"suppliers[{position}]: duplicate supplier {supplier.key!r}; "
                    "give one of them another address or service, or remove it"
                )
            seen.add(supplier.key)
        if not self.tasks:
            raise ValueError("tasks: the list is empty; name at least one lm-eval task")
        for position, task in enumerate(self.tasks):
            if task.samples != "all" and self.sampling.window < task.samples.max:
                raise ValueError(
                    f"tasks[{position}] {task.name!r}: samples.max {task.samples.max} exceeds "
                    f"sampling.window {self.sampling.window}; raise the window to at least {task.samples.max}"
                )
        return self


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

    def supplier(self, key: str) -> SupplierConfig | None:
        """The configured supplier with this partition key, or None."""
        return next((s for s in self.settings.suppliers if s.key == key), None)


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
    source = Path(path) if path is not None else find_config()
    source = source.expanduser().absolute()
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration at {source}; create it or point {CONFIG_ENV} to one "
            "(testbench demo needs none)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {source}: {error}") from None
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_yaml_problem(error)}") from None
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
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _home(source: Path) -> Path:
    named = os.environ.get(HOME_ENV)
    if named:
        return Path(named).expanduser().absolute()
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


_HINTS = {
    "api_key": "keys are never written in the file: put the name of the variable holding it in api_key_env",
    "fewshot": "did you mean num_fewshot?",
    "url": "did you mean base_url?",
    "timeout": "did you mean total_s, first_byte_s, idle_s or connect_s?",
}


def _explain(error: ValidationError, source: Path) -> str:
    return "\n".join(f"{source}: {line}" for line in _problems(error))


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        if "literal['all']" in problem["loc"]:
            continue  # the other half of a union: the rule's own problems follow
        parts = [p for p in problem["loc"] if not str(p).endswith(("SampleRule", "SampleRule]"))]
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
