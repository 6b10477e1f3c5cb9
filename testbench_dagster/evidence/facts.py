"""What a bundle says of its supplier and tasks, read with suspicion into the types of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbench_dagster.config.task_generation import TaskGenerationConfig
from testbench_dagster.core.applicability import EVERYBODY, NOBODY
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Limits
from testbench_dagster.core.rules import PlanningRule
from testbench_dagster.core.sampling import MOST_IDS, SampleRule
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.archive import BundleReader
from testbench_dagster.evidence.layout import BundleError
from testbench_dagster.evidence.records import checked, moment

Model = TypeVar("Model", bound=BaseModel)
#: Version of what made the windows of bundles that do not name it.
FIRST_WINDOWS = 1
#: Of a task whose flags do not fit: it can be neither built nor scored.
NO_FLAGS = TaskFlags(
    output_type="unknown",
    features=[],
    multiple_input=False,
    multiple_target=False,
    repeats=1,
    num_fewshot=0,
    version="unknown",
    metrics={},
    filters=[],
)


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class SupplierFacts(_Said):
    """The supplier as the roster had it; ``models`` are all names it was asked under.

    ``deadline_s``: seconds after which a relay to it was given up; what earlier versions wrote lacks it, and
    has no window that rests on it.
    """

    key: str
    address: str
    service: str
    api: Literal["chat", "completions"]
    models: list[str] = Field(max_length=1000)
    status: str
    echo_logprobs: bool | None
    cut_at: str | None
    deadline_s: float = Field(default=Limits().total_s, gt=0, le=86_400)


class FileFacts(_Said):
    """A file as the manifest has it."""

    sha256: str
    size: int


class StatesFacts(_Said):
    """What doc states follow from besides attempts: the clock, and the word of the installation on others."""

    occasions_minutes: list[float] = Field(min_length=2)
    void: list[str]
    refused: list[str]
    answered: bool


class WitnessLine(_Said):
    """An answer of the supplier to a call that is not in the bundle."""

    id: str = Field(max_length=200)
    finished_at: str
    latency_ms: float = Field(ge=0, le=86_400_000)


class StateLine(_Said):
    """What a bundle says became of a doc in a round."""

    task: str
    prompt_id: str
    doc_id: int
    epoch: int
    round: int
    state: str
    fault: str | None
    late: bool
    ours: bool
    unreachable: bool
    occasions: list[dict[str, Any]]


class Manifest(_Said):
    """The manifest's fields that a check uses; ``windows_version`` is what made the windows."""

    product: str
    made_at: str
    simulation: bool
    supplier: SupplierFacts
    tasks: list[str]
    docs: list[int] | None
    counts: dict[str, int]
    versions: dict[str, str]
    window_docs: int = Field(ge=1)
    windows_version: int = FIRST_WINDOWS  # which older bundles do not name
    windows: list[dict[str, Any]]
    files: dict[str, FileFacts]
    states: StatesFacts | None = None


class _Spec(_Said):
    leaf: str
    root: str
    group: str | None
    framework: str
    num_fewshot: int | None
    metric: str | None
    filter: str | None
    samples: dict[str, Any] | None
    probes: int | None
    probe_tokens: int | None
    worst: float | None = None
    cluster: str | None = None
    asked: bool = True  # whether the configuration still asks the supplier the task
    generation: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)


class _Registration(_Said):
    task: str
    task_hash: str
    framework: str
    lm_task: str
    engine_version: str
    config_hash: str
    fingerprint: str
    eval_split: str
    splits: dict[str, int]
    flags: dict[str, Any]
    n_docs: int = Field(ge=0)
    n_fewshot: int = Field(ge=0)
    registered_at: str


class VoidLine(_Said):
    """A doc of an epoch's sequence that nobody was asked, because no store holds its prompt."""

    position: int = Field(ge=0)
    doc_id: int = Field(ge=0)
    reason: str


class EpochLine(_Said):
    """An epoch of a task; from ``variance`` and ``void`` follows how many docs were asked in it.

    Docs of epochs before ``spread_epoch`` have at most half of the slots, which
    ``spread_draw`` draws; without these two as many as there are.
    ``doc_ids`` are the docs that it asks, None for all.
    ``void`` are the docs that cannot be asked in the form of the bundle's supplier.
    """

    epoch: int = Field(ge=1)
    started_at: str
    seed_sha256: str
    seed: str | None
    groups: int = Field(default=0, ge=0)
    variance: float | None = Field(default=None, ge=0, le=0.25)
    spread_epoch: int | None = Field(default=None, ge=1)
    spread_draw: str | None = Field(default=None, max_length=64)
    void: list[VoidLine] = Field(default_factory=list)
    doc_ids: list[int] | None = Field(default=None, max_length=MOST_IDS)


class _Task(_Said):
    task: str
    spec: _Spec
    max_age_days: float = Field(gt=0, le=1_000_000)
    registration: _Registration
    scorer_version: str
    doc_hashes: list[str]
    fewshot_hashes: list[str]
    docs: dict[str, dict[str, int]]
    definitions: list[str]
    definitions_problem: str | None
    epochs: list[EpochLine]


@dataclass(frozen=True)
class TaskFacts:
    """A task as registered when the bundle was made.

    ``counts`` are the attempts and scores of each doc, ``definitions`` the files of its own definition.
    ``flags_problem`` says why the registration's flags could not be read; there are none then. ``epochs`` are
    those asked and the present one, with their seeds once these were published.
    """

    spec: TaskSpec
    registration: Registration
    scorer_version: str
    doc_hashes: list[str]
    fewshot_hashes: list[str]
    counts: Mapping[int, Mapping[str, int]]
    definitions: list[str]
    definitions_problem: str | None
    flags_problem: str | None
    epochs: Mapping[int, EpochLine]


def read_manifest(bundle: BundleReader) -> Manifest:
    """The manifest.

    Raises:
        BundleError: it is none, was written by a newer version, or a field is wrong.
    """
    raw = bundle.json(layout.MANIFEST)
    if raw.get("kind") != layout.KIND:
        raise BundleError(f"{bundle.path} is no evidence bundle")
    version = raw.get("format")
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{bundle.path}: {layout.MANIFEST} has no format version")
    if version > layout.FORMAT:
        raise BundleError(
            f"{bundle.path} has format {version}, this version of testbench_dagster reads up to "
            f"{layout.FORMAT}; upgrade it (the bundle was written by {str(raw.get('product'))[:40]!r})"
        )
    manifest = _validated(Manifest, raw, f"{bundle.path}: {layout.MANIFEST}")
    listed, held = set(manifest.files), set(bundle.members) - {layout.MANIFEST}
    for name in sorted(listed - held):
        raise BundleError(f"{bundle.path}: {name[:100]} is missing, which its manifest lists")
    for name in sorted(held - listed):
        raise BundleError(f"{bundle.path} holds {name[:100]}, which its manifest does not list")
    return manifest


def read_task(bundle: BundleReader, name: str) -> TaskFacts:
    """A task's registration and settings.

    Raises:
        BundleError: a field is wrong.
    """
    file = layout.task_file(name)
    where = f"{bundle.path}: {file}"
    task = _validated(_Task, bundle.json(file), where)
    if task.task != name or task.registration.task != name:
        raise BundleError(f"{where} is about another task")
    try:
        samples = None if task.spec.samples is None else SampleRule.model_validate(task.spec.samples)
        counts = {int(doc): counts for doc, counts in task.docs.items()}
        generation = TaskGenerationConfig.model_validate(task.spec.generation).generation()
    except ValueError as error:
        raise BundleError(f"{where}: {str(error)[:300]}") from None
    spec = TaskSpec(
        name=name,
        leaf=task.spec.leaf,
        root=task.spec.root,
        group=task.spec.group,
        num_fewshot=task.spec.num_fewshot,
        metric=task.spec.metric,
        filter=task.spec.filter,
        data=None,
        where={},
        samples=samples,
        planning=PlanningRule(max_age_days=task.max_age_days),
        framework=task.spec.framework,
        probes=task.spec.probes,
        probe_tokens=task.spec.probe_tokens,
        worst=task.spec.worst,
        cluster=task.spec.cluster,
        applies=EVERYBODY if task.spec.asked else NOBODY,
        generation=generation,
        options=task.spec.options,
    )
    said = task.registration.model_dump()
    registered_at: datetime = moment(said.pop("registered_at"), f"{where}.registered_at")
    flags, flags_problem = NO_FLAGS, None
    try:
        flags = checked(TaskFlags, said.pop("flags"), "registration.flags")
    except BundleError as error:
        flags_problem = str(error)
    return TaskFacts(
        spec=spec,
        registration=Registration(**said, flags=flags, registered_at=registered_at),
        scorer_version=task.scorer_version,
        doc_hashes=task.doc_hashes,
        fewshot_hashes=task.fewshot_hashes,
        counts=counts,
        definitions=task.definitions,
        definitions_problem=task.definitions_problem,
        flags_problem=flags_problem,
        epochs={e.epoch: e for e in task.epochs},
    )


def _validated(model: type[Model], raw: Any, where: str) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part)[:60] for part in first["loc"])
        raise BundleError(f"{where}: {name}: {first['msg'][:200]}") from None


def read_witness(line: Mapping[str, Any], where: str) -> WitnessLine:
    """A line of the witnesses.

    Raises:
        BundleError: a field is wrong.
    """
    return _validated(WitnessLine, line, where)


def read_state(line: Mapping[str, Any], where: str) -> StateLine:
    """A line of the states.

    Raises:
        BundleError: a field is wrong.
    """
    return _validated(StateLine, line, where)
