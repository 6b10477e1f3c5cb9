"""The blocks of `testbench.yaml` as typed, validated, immutable settings."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from testbench_dagster.config.asking import Asking, AskingSettings, ProxySettings, merged
from testbench_dagster.config.fields import (
    PatternList,
    RelayOverrides,
    RelaySettings,
    SupplierPatternList,
    http_url,
    unmatched_pattern,
)
from testbench_dagster.config.pace import SupplierPace
from testbench_dagster.config.price import Money, SupplierPrice
from testbench_dagster.config.schedules import Cron, ScheduledBackfill
from testbench_dagster.config.service_probes import ServiceProbeSettings
from testbench_dagster.config.services import SERVICE_SOURCE, ServiceConfig, service_problem
from testbench_dagster.config.task_generation import TaskGenerationConfig
from testbench_dagster.core.applicability import Patterns
from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import COMMON_KEYS, framework_plug
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.places import place_problem
from testbench_dagster.core.price import Price, in_micros
from testbench_dagster.core.rules import PlanningRule, PlanningSettings, Strict
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.core.task import CHAT_CHOICE, LM_EVAL

_STORES_ENV = ("TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_POSTGRES_URL")
"""Variables with addresses of servers, which may hold passwords."""

_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_:-]|\.(?!\.)){0,127}")


def _yes_or_no(value: Any) -> Any:
    if not isinstance(value, (bool, str)) or str(value).lower() not in ("true", "false", "yes", "no"):
        raise ValueError(
            f"{value!r} is neither true nor false, nor a list of other suppliers' names of its model; write "
            "reference: true"
        )
    return value


def _allowed(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError(
            f"{value!r} is neither true nor false; write true only where the sandbox for code holds, which "
            "`testbench check` says (docs/code.md)"
        )
    return value


class SupplierConfig(AskingSettings, RelayOverrides):
    """One supplier reached over plain HTTP, with its own relay bounds and settings where they differ.

    ``tasks`` are patterns of the tasks it is asked, by their names and by those of configured groups; None
    for all. ``reference``: it is trusted to serve its model, and all others of that model are compared with
    it; patterns name other suppliers' names of the model. ``price`` is what its tokens cost.
    """

    address: str
    service: str = "external"
    transport: Literal["direct"] = "direct"
    base_url: str
    api: Literal["chat", "completions"] = "chat"
    model: str
    api_key_env: str | None = None
    relays: RelayOverrides = RelayOverrides()
    tasks: PatternList | None = None
    pace: SupplierPace | None = None
    price: SupplierPrice | None = None
    reference: Annotated[
        Annotated[bool, BeforeValidator(_yes_or_no), Tag("flag")] | Annotated[PatternList, Tag("patterns")],
        Discriminator(lambda value: "patterns" if isinstance(value, (list, tuple)) else "flag"),
    ] = False

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
        return http_url(
            value,
            example="http://host:port/v1",
            credentials="name the variable holding the key in api_key_env",
        )

    @model_validator(mode="after")
    def _one_key(self) -> SupplierConfig:
        sent = {name.lower() for name, variable in self.headers.items() if variable is not None}
        if self.api_key_env is not None and self.key_header is None and "authorization" in sent:
            raise ValueError("headers: Authorization is what api_key_env is sent in; remove one of them")
        return self

    @property
    def key(self) -> str:
        """Partition key of the supplier: ``<address>@<service>``."""
        return f"{self.address}@{self.service}"

    @property
    def own_pace(self) -> Pace | None:
        """How fast it may be asked, under its own account or one that it shares."""
        return None if self.pace is None else self.pace.of_supplier(self.key)

    @property
    def own_price(self) -> Price | None:
        """What its tokens cost, None where that is not said."""
        return None if self.price is None else self.price.of_tokens()

    @property
    def bounds(self) -> dict[str, Any]:
        """The relay bounds that are set for this supplier, by field of :class:`~..core.relay.Limits`.

        A bound may stand in the supplier's ``relays`` block or beside ``base_url``; the latter wins.
        """
        return {**self.relays.overrides(), **self.overrides()}


class TaskConfig(Strict):
    """One task of a framework; of lm-eval also a group or tag that expands to its leaf tasks.

    ``services`` and ``suppliers`` are patterns of who is asked it, by service and by supplier key; None for
    everybody.
    """

    name: Annotated[str, Field(min_length=1)]
    framework: str = "lm_eval"
    mode: Literal["chat_choice"] | None = None
    alias: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0, le=1000)
    metric: str | None = None
    filter: str | None = None
    cluster: Annotated[str, Field(min_length=1)] | None = None
    worst: float | None = Field(default=None, allow_inf_nan=False)
    data: dict[str, str | dict[str, str]] | None = None
    where: dict[str, str] | None = None
    only: list[str] | None = None
    samples: Literal["all"] | SampleRule = SampleRule()
    planning: PlanningRule = PlanningRule()
    services: PatternList | None = None
    suppliers: SupplierPatternList | None = None
    generation: TaskGenerationConfig = TaskGenerationConfig()
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _framework_of_its_mode(cls, value: Any) -> Any:
        """A mode is another framework for the same tasks; what it cannot be is said by the checks below."""
        if not isinstance(value, dict):
            return value
        if value.get("mode", CHAT_CHOICE) is None:
            value = {key: given for key, given in value.items() if key != "mode"}
        if value.get("framework", LM_EVAL) != LM_EVAL:
            return value
        return {**value, "framework": CHAT_CHOICE} if value.get("mode") == CHAT_CHOICE else value

    @model_validator(mode="after")
    def _of_its_framework(self) -> TaskConfig:
        try:
            plug = framework_plug(self.framework)
        except TaskError as error:
            raise ValueError(str(error)) from None
        try:
            names = None if plug.task_names is None else list(plug.task_names())
        except Exception as error:  # of another package
            raise ValueError(f"framework {plug.name!r} cannot name its tasks: {error!r}; mend it") from None
        if names is not None and self.name not in names:
            raise ValueError(
                f"{self.name!r} is no task of framework {plug.name!r}; name one of {', '.join(names)}, "
                "or leave framework out for a task of lm-eval"
            )
        for key in type(self).model_fields:
            if key in self.model_fields_set and key not in plug.keys | COMMON_KEYS:
                hint = (
                    " (identity.probes says how many)"
                    if (plug.name, key) == ("signatures", "samples")
                    else ""
                )
                raise ValueError(
                    f"{key} means nothing to {self.name!r} of framework {plug.name!r}{hint}; remove it"
                )
        try:
            plug.check(self.name, self.options)
        except ValueError:
            raise
        except Exception as error:  # of another package
            raise ValueError(f"framework {plug.name!r} cannot check options: {error!r}; mend it") from None
        return self

    @field_validator("samples", mode="before")
    @classmethod
    def _sample_rule(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return {"min": value, "max": value, "half_width": None}
        if value != "all" and not isinstance(value, (dict, SampleRule)):
            raise ValueError(
                f"{value!r} is neither 'all', nor a positive number of docs, "
                "nor a mapping such as {min: 25, max: 100} or {ids: [0, 7]}"
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


class SamplingSettings(Strict):
    """Age of a sample (days) after which it no longer counts, window size (docs), seed of the epochs."""

    max_age_days: float = Field(default=32, gt=0, le=700_000)  # within years that have a date
    window: int = Field(default=100, ge=1)
    epoch_seed: int | None = None


class BudgetSettings(Strict):
    """Hard caps on relays and money, retries and capability probes included; None means no cap.

    ``relays_per_day``: per service and UTC day, ``services`` overrides it by service.
    ``relays_per_supplier_hour``: politeness, per supplier and UTC hour. ``money_per_day``: in the currency of
    the prices, per service and UTC day, ``money_services`` overrides it by service.
    """

    relays_per_day: int | None = Field(default=None, ge=0)
    services: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    relays_per_supplier_hour: int | None = Field(default=None, ge=1)
    money_per_day: Money | None = None
    money_services: dict[str, Money] = Field(default_factory=dict)

    def of_service(self, service: str) -> int | None:
        """The daily cap of a service, in relays."""
        return self.services.get(service, self.relays_per_day)

    def money_of_service(self, service: str) -> int | None:
        """The daily cap of a service on money, in millionths of the currency."""
        amount = self.money_services.get(service, self.money_per_day)
        return None if amount is None else in_micros(amount)


class SupplierSource(ProxySettings):
    """Where further suppliers come from: a JSON ``file``, or a ``url`` that returns such a roster.

    What a source lists is not trusted: its endpoints may not lie in private networks unless
    ``allow_private_networks``, and it cannot name keys. ``api_key_env`` gives all its suppliers one key,
    ``token_env`` is what the roster's own server wants to see (a bearer token), ``proxy``, ``proxy_env`` and
    ``tls`` how that is connected to. ``pace`` is that of each of its suppliers; a source cannot say it, for
    who bounds how often it is asked bounds what is found out about it. ``trust_prices``: the prices that it
    lists count against the budget of money, as those of testbench.yaml do; else a supplier could use it up by
    a price of its own.
    """

    file: str | None = None
    url: str | None = None
    name: str | None = None
    allow_private_networks: bool = False
    api_key_env: str | None = None
    token_env: str | None = None
    timeout_s: float = Field(default=15, gt=0, le=40)
    pace: SupplierPace | None = None
    trust_prices: bool = False

    @field_validator("url")
    @classmethod
    def _plain_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if "@" in parts.netloc:
            raise ValueError("a URL may not hold credentials; name the variable holding a token in token_env")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no http(s) URL; write it like https://host/roster.json")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> SupplierSource:
        if (self.file is None) == (self.url is None):
            raise ValueError("give either file (a JSON file) or url (an HTTP endpoint)")
        return self

    @property
    def label(self) -> str:
        """What the roster calls the source."""
        return self.name or self.file or str(self.url)


class RosterSettings(Strict):
    """When suppliers leave, and their partitions go.

    ``grace_hours``: how long a supplier that left keeps its partition; its history stays for good. A source
    that leaves out more than ``loss_share`` of its suppliers, or all, is believed once ``loss_looks`` looks
    in a row over at least ``loss_minutes``, and apart, agree; a share of 1 believes everything at once.
    """

    grace_hours: float = Field(default=72, ge=0)
    loss_share: float = Field(default=0.2, ge=0, le=1)
    loss_looks: int = Field(default=3, ge=1, le=1000)
    loss_minutes: float = Field(default=60, ge=0)


class SensorSettings(Strict):
    """A sensor: whether it runs, and the least number of seconds between its ticks."""

    enabled: bool = True
    every_s: int = Field(default=60, ge=1, le=86_400)


class ScheduleSettings(Strict):
    """A schedule: whether it runs, and when (a cron expression, UTC)."""

    enabled: bool = True
    cron: Cron


class AutomationSettings(Strict):
    """What happens by itself when the Dagster daemon runs; each part can be switched off and timed.

    What a part's block leaves out is as by default: ``{enabled: false}`` needs no time.
    ``summaries`` is when the leaderboard is refreshed if something new arrived, ``summaries_sensor`` looks
    whether that is so. ``alert_webhook_env`` names the variable with the URL that failed runs, detected
    changes and tasks set aside are told to, ``alert_proxy_env`` one with the URL of an HTTP proxy on the way.
    """

    new_suppliers: SensorSettings = SensorSettings()
    stale_catalog: SensorSettings = SensorSettings()
    stale_scores: SensorSettings = SensorSettings()
    service_probes: SensorSettings = SensorSettings()
    lost_runs: SensorSettings = SensorSettings(every_s=30)
    change_alerts: SensorSettings = SensorSettings()
    summaries_sensor: SensorSettings = SensorSettings()
    summaries: ScheduleSettings = ScheduleSettings(cron="0 * * * *")
    nightly_evaluation: ScheduleSettings = ScheduleSettings(cron="0 2 * * *")
    hourly_summaries: ScheduleSettings = ScheduleSettings(cron="30 * * * *")
    daily_snapshots: ScheduleSettings = ScheduleSettings(cron="10 0 * * *")
    weekly_epochs: ScheduleSettings = ScheduleSettings(cron="0 3 * * 1")
    retention: ScheduleSettings = ScheduleSettings(cron="30 4 * * *")
    alert_webhook_env: str | None = None
    alert_proxy_env: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        merged = dict(value)
        for name, given in value.items():
            field = cls.model_fields.get(name)
            if field is not None and isinstance(field.default, BaseModel) and isinstance(given, dict):
                merged[name] = {**field.default.model_dump(), **given}
        return merged


#: Names that sensors and schedules of the platform have.
AUTOMATION_NAMES = frozenset(
    name
    for name, field in AutomationSettings.model_fields.items()
    if isinstance(field.default, (SensorSettings, ScheduleSettings))
) | {"run_failure", "summaries_automation"}

CutReason = Literal["repeat", "group", "score"]


class IdentityConfig(Strict):
    """What is asked to tell which suppliers answer alike, and what follows from a change.

    ``probes`` prompts of at most ``probe_tokens`` tokens are drawn per epoch of the task ``identity``
    (framework ``signatures``); None for as many as the size of the roster takes. Each is asked again after
    ``probe_days``. ``rotate_days`` is the mean time for
    which one member stands for its group. ``cut_on`` names the evidence of a changed model that cuts windows:
    ``repeat`` (other answers to the same prompts), ``group`` (a member leaves its group's answers),
    ``score``; what is left out is only reported. ``reference_margin`` is a difference of scores that matters
    to nobody: a supplier is as the reference of its model where the true one is certainly smaller.
    """

    probes: int | None = Field(default=None, ge=8, le=500)
    probe_tokens: int = Field(default=256, ge=8, le=256)
    probe_days: float = Field(default=10, gt=0)
    rotate_days: float = Field(default=7, gt=0)
    cut_on: tuple[CutReason, ...] = ("repeat", "group", "score")
    reference_margin: float = Field(default=0.05, gt=0, lt=1)


class SummarySettings(Strict):
    """How windows are rolled up into abilities.

    ``partial_pooling``: tasks with fewer than 20 docs are drawn towards what the other suppliers reach; the
    result stands beside the raw scores, which stay as they are.
    """

    partial_pooling: bool = False


class RetentionSettings(Strict):
    """What ``apply_retention`` removes: evidence after ``evidence_days``, Dagster's history after the others.

    ``evidence_days`` None keeps prompts, attempts and scores for good. Of finished runs of Dagster log lines
    go after ``events_days``, and after ``runs_days`` (None: never) the runs themselves with what they
    materialized and checked, but the newest of each partition and check: they are its status.
    """

    evidence_days: float | None = Field(default=None, gt=0)
    events_days: float = Field(default=30, gt=0)
    runs_days: float | None = Field(default=90, gt=0)


class BodySettings(Strict):
    """Where large bodies of attempts go in place of the document store, and from how many bytes on."""

    place: str
    min_bytes: int = Field(default=4096, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _place_alone(cls, value: Any) -> Any:
        return {"place": value} if isinstance(value, str) else value

    @field_validator("place")
    @classmethod
    def _place(cls, value: str) -> str:
        if problem := place_problem(value):
            raise ValueError(problem)
        return value.rstrip("/")


class BoardSettings(Strict):
    """Where people reach the board: the published page leads there, and it answers to that name."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _plain_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = http_url(
            value,
            example="https://board.example.org",
            credentials="whoever asks for them is a proxy in front of the board",
        )
        if urlsplit(url).path:
            raise ValueError(
                f"{value!r} has a path; the board stands at the root, as https://board.example.org"
            )
        return url


class Settings(Strict):
    """The whole of ``testbench.yaml``.

    ``installation`` names the installation: a store belongs to one, whatever hosts and homes that has.
    """

    suppliers: list[SupplierConfig] = Field(default_factory=list)
    tasks: list[TaskConfig]
    installation: str | None = None
    taxonomies: list[str] = Field(default_factory=list)
    summaries: SummarySettings = SummarySettings()
    relays: RelaySettings = RelaySettings()
    sampling: SamplingSettings = SamplingSettings()
    budget: BudgetSettings = BudgetSettings()
    planning: PlanningSettings = PlanningSettings()
    supplier_sources: list[SupplierSource] = Field(default_factory=list)
    roster: RosterSettings = RosterSettings()
    identity: IdentityConfig = IdentityConfig()
    automation: AutomationSettings = AutomationSettings()
    schedules: list[ScheduledBackfill] = Field(default_factory=list)
    retention: RetentionSettings = RetentionSettings()
    board: BoardSettings = BoardSettings()
    service_probes: ServiceProbeSettings = ServiceProbeSettings()
    services: dict[str, ServiceConfig] = Field(default_factory=dict)
    publish: str | None = None
    bodies: BodySettings | None = None
    task_paths: list[str] = Field(default_factory=list)
    choices_on_chat: bool = False
    allow_code_execution: Annotated[bool, BeforeValidator(_allowed)] = False
    simulation: bool = False

    @field_validator("publish")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is not None and (problem := place_problem(value)):
            raise ValueError(problem)
        return value

    @property
    def reference_keys(self) -> tuple[str, ...]:
        """Keys of the suppliers that are trusted to serve their models, in the order of the configuration."""
        return tuple(one.key for one in self.suppliers if one.reference is not False)

    @field_validator("installation")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError(
                f"{value!r} is no name of an installation: use 1 to 128 letters, digits, '_', '-', ':' or "
                "single '.', starting with a letter or digit"
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
        problem = _pace_problem(self.suppliers, self.supplier_sources)
        if problem:
            raise ValueError(problem)
        if not self.tasks:
            raise ValueError("tasks: the list is empty; name at least one lm-eval task")
        for position, task in enumerate(self.tasks):
            sampled = "samples" in framework_plug(task.framework).keys
            samples = task.samples if sampled and task.samples != "all" else None
            if samples is not None and samples.ids is None and self.sampling.window < samples.max:
                raise ValueError(
                    f"tasks[{position}] {task.name!r}: samples.max {samples.max} exceeds "
                    f"sampling.window {self.sampling.window}; raise the window to at least {samples.max}"
                )
            rule = task.planning.over(self.planning)
            problem = rule.problem()
            if problem is None and rule.schedule and rule.schedule.needs_height and not self._tells_height:
                problem = (
                    f"schedule counts {rule.schedule.unit}s, but nothing tells a block height; count hours "
                    "or minutes, or add a service with nodes or a source whose roster has a height"
                )
            if problem:
                raise ValueError(f"tasks[{position}] {task.name!r}: planning: {problem}")
            if problem := self._unmatched_pattern(task.services, task.suppliers):
                raise ValueError(f"tasks[{position}] {task.name!r}: {problem}")
        if problem := self._unmatched_pattern(self.service_probes.services, self.service_probes.suppliers):
            raise ValueError(f"service_probes: {problem}")
        labels = [source.label for source in self.supplier_sources]
        for position, label in enumerate(labels):
            if label in labels[:position] or label == CONFIG_SOURCE or label.startswith(SERVICE_SOURCE):
                raise ValueError(
                    f"supplier_sources[{position}]: {label!r} names another source already; give it a name"
                )
        problem = service_problem(self.services)
        if problem:
            raise ValueError(problem)
        names = [schedule.name for schedule in self.schedules]
        for position, name in enumerate(names):
            if name in AUTOMATION_NAMES or name in names[:position]:
                raise ValueError(
                    f"schedules[{position}].name: {name!r} names another schedule or sensor already; choose "
                    "another name"
                )
        return self

    def schedule(self, name: str) -> ScheduledBackfill | None:
        """The configured schedule with this name, or None."""
        return next((one for one in self.schedules if one.name == name), None)

    def _unmatched_pattern(self, of_services: Patterns | None, of_suppliers: Patterns | None) -> str | None:
        """What is wrong with a pattern that can match nobody, as far as that is known without sources."""
        if not self.supplier_sources:  # which may list suppliers of any service
            services = [*(supplier.service for supplier in self.suppliers), *self.services]
            if problem := unmatched_pattern(of_services, services, "configured services"):
                return f"services: {problem}"
        if not self.discovers:
            keys = [supplier.key for supplier in self.suppliers]
            if problem := unmatched_pattern(of_suppliers, keys, "configured suppliers"):
                return f"suppliers: {problem}"
        return None

    def pace_of(self, supplier: Supplier) -> Pace | None:
        """How fast a supplier may be asked, and with whom it shares that; None for as fast as it can."""
        if supplier.source == CONFIG_SOURCE:
            return self._paces.get(supplier.key)
        if (listed := self._source_paces.get(supplier.source)) is not None:
            return listed.of_supplier(supplier.key)
        service = self.service_of(supplier.source)
        if service is None or service.pace is None:
            return None
        each = service.pace.per == "supplier"
        return service.pace.of(f"supplier:{supplier.key}" if each else supplier.source)

    @cached_property
    def _paces(self) -> dict[str, Pace]:
        return {s.key: pace for s in self.suppliers if (pace := s.own_pace) is not None}

    @cached_property
    def _source_paces(self) -> dict[str, SupplierPace]:
        return {s.label: s.pace for s in self.supplier_sources if s.pace is not None}

    @property
    def discovers(self) -> bool:
        """Whether suppliers come from elsewhere than ``suppliers``."""
        return bool(self.supplier_sources or self.discovered_services)

    @property
    def discovered_services(self) -> dict[str, ServiceConfig]:
        """The services whose suppliers are found by their transport."""
        return {name: service for name, service in self.services.items() if not service.listed_elsewhere}

    def shared_bounds(self, service: str) -> dict[str, Any]:
        """The relay bounds that suppliers which are listed elsewhere inherit from a service."""
        block = self.services.get(service)
        return block.relays.overrides() if block is not None and block.listed_elsewhere else {}

    def asking(self, service: str, transport: str, own: AskingSettings | None = None) -> Asking:
        """How a supplier of a service is asked: its own settings over those of the service.

        Where the service is reached by another transport than the supplier, only ``generation`` and
        ``context_tokens`` are the service's: headers and connections belong to the way.
        """
        shared: AskingSettings | None = None
        if (block := self.services.get(service)) is not None:
            of_all = AskingSettings(generation=block.generation, context_tokens=block.context_tokens)
            shared = block if block.reached_by(transport) else of_all
        return merged(*(said for said in (shared, own) if said is not None))

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold keys, tokens and other secrets."""
        services = self.services.values()
        asking: list[AskingSettings] = [*self.suppliers, *services]
        named = [
            *(name for block in asking for name in block.sent_variables()),
            *(supplier.api_key_env for supplier in self.suppliers),
            *(name for source in self.supplier_sources for name in (source.api_key_env, source.token_env)),
            *(source.proxy_env for source in self.supplier_sources),
            *(app.key_env for service in services for app in service.apps),
            *(service.gateway.token_env for service in services if service.gateway),
            self.automation.alert_webhook_env,
            self.automation.alert_proxy_env,
        ]
        return frozenset(_STORES_ENV) | {name for name in named if name}

    @property
    def _tells_height(self) -> bool:
        return bool(self.supplier_sources) or any(s.nodes is not None for s in self.services.values())

    def service_of(self, source: str) -> ServiceConfig | None:
        """The service behind the name of a source in the roster, or None."""
        if not source.startswith(SERVICE_SOURCE):
            return None
        return self.services.get(source.removeprefix(SERVICE_SOURCE))


def _pace_problem(suppliers: list[SupplierConfig], sources: list[SupplierSource]) -> str | None:
    """What is wrong with the paces that suppliers share, with the remedy, or None."""
    shared: dict[str, tuple[str, Pace]] = {}
    blocks = [(f"suppliers[{i}]", one.pace) for i, one in enumerate(suppliers)]
    blocks += [(f"supplier_sources[{i}]", one.pace) for i, one in enumerate(sources)]
    for where, block in blocks:
        if block is None or block.account is None:
            continue
        pace = block.of(block.account)
        first, known = shared.setdefault(block.account, (where, pace))
        if known != pace:
            return (
                f"{where}.pace: account {block.account!r} is bound otherwise in {first}; who shares an "
                "account shares its numbers, so make them equal"
            )
    return None
