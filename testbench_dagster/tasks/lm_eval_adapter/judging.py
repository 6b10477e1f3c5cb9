"""Whether a task of lm-eval can be measured, tried on rows that stand in for its data set.

The task is built, asked and scored as the product does it, on a few rows of columns that its templates and
functions take (:mod:`.standins`). What it would load from the Hub is not asked for: whether that is there, or
needs permission, is no part of the judgment.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import io
import random
import re
import signal
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from jinja2 import TemplateError, meta
from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.chat_choice.convert import Question, question_of
from testbench_dagster.tasks.chat_choice.definition import task_refusal
from testbench_dagster.tasks.index import Entry, raw_definition
from testbench_dagster.tasks.lm_eval_adapter.building import FEWSHOT_SEED
from testbench_dagster.tasks.lm_eval_adapter.definitions import check_before_import, copy_config
from testbench_dagster.tasks.lm_eval_adapter.internals import (
    CodeEnds,
    LmEntry,
    LmKind,
    RecordingFactory,
    missing_function,
    only_cached_data,
    set_instances,
    template_environment,
)
from testbench_dagster.tasks.lm_eval_adapter.outages import is_outage
from testbench_dagster.tasks.lm_eval_adapter.standins import (
    Kind,
    Layout,
    kinds,
    made_up,
    others,
    rows,
    with_column,
)
from testbench_dagster.tasks.verdicts import Need, Reason, Verdict

#: Layouts that are tried for a task, and those tried further for one that is asked as it is, to convert it.
TRIES, TRIES_TO_CONVERT = 400, 80
#: Seconds of CPU that one of them may take.
_TRY_S = 20
_DOCS = 4
#: Packages that metrics of `evaluate` import, of those that tasks name.
_OF_METRICS: Mapping[str, tuple[str, ...]] = {
    "bertscore": ("bert_score",),
    "bleurt": ("bleurt",),
    "cer": ("jiwer",),
    "comet": ("comet",),
    "meteor": ("nltk",),
    "perplexity": ("torch",),
    "rouge": ("rouge_score",),
    "wer": ("jiwer",),
}
#: Keys of a definition that say nothing of what data, code or form a task needs.
_NAMES_ONLY = frozenset(
    {
        "dataset_name",
        "description",
        "doc_to_decontamination_query",
        "fewshot_delimiter",
        "generation_kwargs",
        "group",
        "metadata",
        "num_fewshot",
        "should_decontaminate",
        "tag",
        "task",
        "task_alias",
    }
)
_PYTHON, _PACKAGES = (str(Path(inspect.getfile(module)).parent) for module in (functools, datasets))
_PACKAGES = str(Path(_PACKAGES).parent)
_OURS = str(Path(__file__).parent.parent.parent)
_NLTK = re.compile(r"Resource \S*?(\w+)\S* not found")
_METHODS = "|".join(sorted({*dir(str), *dir(list), *dir(dict)}))
_MISSING = tuple(
    re.compile(pattern)
    for pattern in (
        r"^'([^']+)' is undefined",
        r"^'dict object' has no attribute '(\w+)'",
        rf"^'\w+ object' has no attribute '(?!(?:{_METHODS})')(\w+)'",
        r"Column '?([^']+?)'? not in",
        r"Column name \[?'?(\w+)'?\]? not in",
        r"Column to remove \['(\w+)'",
    )
)


class _Unfit(Exception):
    """The rows are none of the task's: no docs are left of them, or the right option is none."""


class _NoDocs(_Unfit):
    """Not one row is kept: whatever stops a row that is kept has come further."""


class _NotConverted(Exception):
    """Asked as it is, but not as a choice on chat; the message says why."""


class _NoAccuracy(_NotConverted):
    """What its own scoring calls accuracy is something else."""


class _NoData(Exception):
    """A task that makes its data itself cannot: what else it takes is not here."""


class _TookTooLong(BaseException):
    """A try used more CPU than it may; no code of a task may catch it."""


@dataclass
class _Reached:
    """What has worked of a task: the last stage, and whether a request had an empty context."""

    stage: int = 0
    empty_context: bool = False

    def at_least(self, stage: int) -> None:
        self.stage = max(self.stage, stage)


class _Splits(dict[str, Any]):
    """Every split there may be, of the same rows."""

    def __init__(self, data: datasets.Dataset) -> None:
        super().__init__()
        self._data = data

    def __getitem__(self, split: str) -> Any:
        return self._data

    def __contains__(self, split: object) -> bool:
        return True


class _StandInTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval is not typed
    """A task on stand-in rows; ``reached`` grows with what of it has worked."""

    def __init__(self, config: dict[str, Any], data: datasets.Dataset, reached: _Reached) -> None:
        self._rows, self._reached = data, reached
        super().__init__(config=config)
        reached.at_least(5)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take the rows for every split, unless the task makes its data itself."""
        if not callable(self.config.custom_dataset):
            self.dataset = _Splits(self._rows)
            return
        try:
            super().download(dataset_kwargs, **kwargs)
        except Exception as error:
            raise _NoData(str(error)) from error

    def fewshot_docs(self) -> Any:
        """The few-shot pool; not even looked for at 0 shots."""
        return super().fewshot_docs() if self.config.num_fewshot else None

    @property
    def eval_docs(self) -> Any:
        """The docs, of which there have to be some."""
        docs = super().eval_docs
        if not hasattr(docs, "features"):
            raise TypeError(f"process_docs gives a {type(docs).__name__}, which is no data set")
        if not len(docs):
            raise _NoDocs("process_docs keeps none of the rows")
        self._reached.at_least(1)
        return docs

    def doc_to_text(self, *args: Any, **kwargs: Any) -> Any:
        """The question."""
        found = super().doc_to_text(*args, **kwargs)
        self._reached.at_least(2)
        return found

    def doc_to_target(self, *args: Any, **kwargs: Any) -> Any:
        """What is right."""
        found = super().doc_to_target(*args, **kwargs)
        self._reached.at_least(3)
        return found

    def doc_to_choice(self, *args: Any, **kwargs: Any) -> Any:
        """The options."""
        found = super().doc_to_choice(*args, **kwargs)
        self._reached.at_least(4)
        return found


@dataclass(frozen=True)
class _Try:
    """How far a task came on some rows: the stage, a line of its code, what stopped it."""

    stage: int
    line: int = 0
    error: BaseException | None = None
    hint: str = ""
    empty_context: bool = False

    @property
    def progress(self) -> tuple[int, int]:
        return self.stage, self.line


#: Stages: no row was kept; answers were scored; docs became choices; what was right of these counts as such.
_NOTHING, _SCORED, _CHOICES, _CONVERTED = -1, 8, 9, 10


def load_config(entry: Entry) -> dict[str, Any]:
    """The merged configuration of a task by itself, its functions imported.

    Raises:
        Exception: what stands against it, of any kind.
    """
    factory = RecordingFactory(check_before_import)
    known = LmEntry(entry.name, LmKind.TASK, Path(entry.path or ""))
    factory.record(known, {entry.name: known})
    if entry.name in factory.problems:
        raise factory.problems[entry.name]
    return factory.configs[entry.name]


def judge(entry: Entry, layouts: Sequence[Layout] = ()) -> tuple[Verdict, Layout | None]:
    """The verdict on a task, and the layout of rows that it was found on; ``layouts`` are tried first."""
    if entry.kind == "python":
        return Verdict(None, as_is=Reason("python_class")), None
    with offline() as metrics:
        try:
            config = load_config(entry)
        except Exception as error:
            output_type = str(raw_definition(Path(entry.path or "")).get("output_type") or "generate_until")
            reason = _reason(error)
            return Verdict(output_type, reason, reason if output_type == "multiple_choice" else None), None
        return _judged(config, list(layouts), metrics)


def _judged(
    config: dict[str, Any], layouts: Sequence[Layout], metrics: set[str]
) -> tuple[Verdict, Layout | None]:
    output_type = str(config.get("output_type") or "generate_until")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        media = Reason("media")
        return Verdict(output_type, media, media if output_type == "multiple_choice" else None), None
    refused = task_refusal(config) if output_type == "multiple_choice" else None
    wanted = _CONVERTED if output_type == "multiple_choice" and refused is None else _SCORED
    layout, found = _best(config, layouts, wanted)
    needs = [*_data_needs(config), *(Need("metric", name) for name in sorted(metrics))]
    needs += [
        Need("package", package)
        for name in sorted(metrics)
        for package in _OF_METRICS.get(name, ())
        if importlib.util.find_spec(package) is None
    ]
    as_is = chat = None
    script = (config.get("dataset_kwargs") or {}).get("trust_remote_code")
    if script and (found.stage >= _SCORED or not isinstance(found.error, ImportError)):
        as_is = Reason("script", str(config.get("dataset_path")))
    elif found.stage < _SCORED:
        as_is = _reason(found.error)
    elif found.empty_context:
        as_is = Reason("empty_context")
    if output_type == "multiple_choice":
        if refused is not None:
            chat = Reason("no_accuracy" if "accuracy" in refused else "no_choice", refused)
        elif found.stage < _SCORED or script:
            chat = as_is
        elif found.error is not None:
            chat = Reason(
                "no_accuracy" if isinstance(found.error, _NoAccuracy) else "no_choice", str(found.error)
            )
    return Verdict(output_type, as_is, chat, tuple(needs), tuple(_notes(config))), layout


def _data_needs(config: Mapping[str, Any]) -> Iterator[Need]:
    path = config.get("dataset_path")
    if not path or callable(config.get("custom_dataset")):
        return
    if str(path) not in ("json", "csv", "parquet", "text", "arrow"):
        yield Need("hub", str(path))
    else:
        yield Need("files")


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("gen_prefix"):
        yield "prefix"
    if config.get("output_type") == "loglikelihood_rolling":
        yield "first_token"
    until = (config.get("generation_kwargs") or {}).get("until")
    if isinstance(until, list) and len(until) > 4:
        yield "stops"


def _best(config: dict[str, Any], layouts: Sequence[Layout], wanted: int) -> tuple[Layout, _Try]:
    """The layout on which a task comes furthest, and how far."""
    tried = []
    for layout in layouts:
        tried.append((layout, _try(config, layout, wanted)))
        if tried[-1][1].stage >= wanted:
            return tried[-1]
    starts: list[Layout] = [max(tried, key=_progress)[0]] if tried else []
    starts.append({name: kinds(name)[0] for name in _columns(config)})
    for start in starts:
        tried.append(_search(config, start, wanted))
        if tried[-1][1].stage >= wanted:
            return tried[-1]
    return max(tried, key=_progress)


def _progress(tried: tuple[Layout, _Try]) -> tuple[int, int]:
    return tried[1].progress


def _search(config: dict[str, Any], layout: Layout, wanted: int) -> tuple[Layout, _Try]:
    """Change a layout column by column as long as the task comes further with it."""
    found, constants = _try(config, layout, wanted), _constants(config)
    tries, seen = 1, {repr(layout)}
    while found.stage < wanted and _may_help(found.error):
        limit = TRIES if found.stage < _SCORED else tries + TRIES_TO_CONVERT
        name = _missing(found.error)
        candidates: Iterator[tuple[Layout, bool]] = (
            (other, False) for other in others(layout, f"{found.hint} {found.error}", constants)
        )
        if name is not None and found.stage < _SCORED:
            candidates = _chained(((other, True) for other in with_column(layout, name)), candidates)
        for other, adds in candidates:
            if tries >= limit:
                return layout, found
            if repr(other) in seen:
                continue
            seen.add(repr(other))
            tries += 1
            then = _try(config, other, wanted)
            further = then.stage >= found.stage or isinstance(then.error, _NoDocs)
            gained = adds and _missing(then.error) != name and further
            # on the same line, but now it says what it lacks
            gained |= name is None and further and _missing(then.error) is not None
            if gained or then.progress > found.progress:
                layout, found = other, then
                break
        else:
            return layout, found
    return layout, found


def _chained(*parts: Iterator[tuple[Layout, bool]]) -> Iterator[tuple[Layout, bool]]:
    for part in parts:
        yield from part


def _may_help(error: BaseException | None) -> bool:
    """Whether other rows may: what is not installed, or on the Hub alone, they do not bring."""
    return not isinstance(error, (ImportError, _NoData, _NoAccuracy, _TookTooLong)) and not (
        error and _is_offline(error)
    )


def _missing(error: BaseException | None) -> str | None:
    """The column, or part of an object, that an error says is not there."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    for pattern in _MISSING:
        if match := pattern.search(text):
            return match[1]
    is_name = isinstance(error, KeyError) and len(text) < 60 and not made_up(text)
    return text if is_name else None


def _try(config: dict[str, Any], layout: Layout, wanted: int) -> _Try:
    reached = _Reached()
    try:
        with _bounded(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            random.seed(0)
            np.random.seed(1234)
            data = datasets.Dataset.from_list(rows(layout))
            task = _StandInTask(copy_config(config), data, reached)
            return _asked(task, reached, wanted)
    except (Exception, SystemExit, _TookTooLong) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if _is_of_a_task(f.filename)]
        line, hint = (own[-1].lineno or 0, own[-1].line or "") if own else (0, "")
        stage = _NOTHING if isinstance(error, _NoDocs) else reached.stage
        return _Try(stage, line, error, hint, reached.empty_context)


def _is_of_a_task(filename: str) -> bool:
    """Whether a line of code is a task's own: not Python's, a package's or ours."""
    if filename.startswith("<") or "/lm_eval/tasks/" in filename:
        return True
    return not filename.startswith((_PYTHON, _PACKAGES, _OURS))


def _asked(task: _StandInTask, reached: _Reached, wanted: int) -> _Try:
    """Ask a task's first docs, score what should be right, convert them."""
    shots = task.config.num_fewshot or 0
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    docs = [doc for doc, _ in zip(task.eval_docs, range(_DOCS), strict=False)]
    asked = []
    for number, doc in enumerate(docs):
        context = task.fewshot_context(doc, num_fewshot=shots, gen_prefix=task.doc_to_prefix(doc))
        metadata = (task.config.task, number, task.config.repeats)
        made = task.construct_requests(doc=doc, ctx=context, metadata=metadata)
        instances = made if isinstance(made, list) else [made]
        reached.at_least(6)
        for instance in instances:
            if not isinstance(instance.args[0], str) or not isinstance(instance.args[-1], (str, dict)):
                raise _Unfit("a request is no text")
            if instance.request_type == "loglikelihood":
                reached.empty_context |= not instance.args[0].rstrip()
        if task.OUTPUT_TYPE == "multiple_choice":
            _check_gold(task, doc)
        asked.append((doc, instances))
    reached.at_least(7)
    for doc, instances in asked:
        for instance in instances:
            instance.resps = [_answer(task, doc, instance)] * (task.config.repeats or 1)
    set_instances(task, [instance for _, instances in asked for instance in instances])
    task.apply_filters()
    for doc, instances in asked:
        for name in instances[0].filtered_resps:
            task.process_results(doc, [instance.filtered_resps[name] for instance in instances])
    reached.at_least(_SCORED)
    if wanted > _SCORED:
        choices = [(doc, _convert(task, doc)) for doc, _ in asked]
        reached.at_least(_CHOICES)
        for doc, question in choices:
            _check_accuracy(task, doc, question)
        reached.at_least(_CONVERTED)
    return _Try(reached.stage, empty_context=reached.empty_context)


def _convert(task: _StandInTask, doc: Any) -> Question:
    text, options, target = task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)
    found = question_of(text, options, target, str(target) if task.multiple_input else None)
    if not isinstance(found, Question):
        raise _NotConverted(str(found.value))
    return found


def _check_accuracy(task: _StandInTask, doc: Any, question: Question) -> None:
    if task.config.process_results is None:
        return
    options = task.doc_to_choice(doc)
    for best in range(len(options)):
        likelihoods = [(-1.0 if option == best else -1000.0, False) for option in range(len(options))]
        metrics = task.process_results(doc, likelihoods)
        if metrics.get("acc", metrics.get("acc_norm")) != int(best in question.right):
            raise _NoAccuracy(
                "what its own scoring calls accuracy is not whether the right option was chosen"
            )


def _check_gold(task: _StandInTask, doc: Any) -> None:
    options = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    for one in gold if isinstance(gold, list) else [gold]:
        place = options.index(one) if isinstance(one, str) and one in options else one
        if not isinstance(place, int) or not 0 <= place < len(options):
            raise _Unfit("the right option is none of the options")
    if gold == []:
        raise _Unfit("no option is right")
    if len(options) < 2 or len(set(map(str, options))) < len(options):
        raise _Unfit("two options are equal, or there is only one")


def _answer(task: _StandInTask, doc: Any, instance: Any) -> Any:
    if instance.request_type == "loglikelihood":
        return (-1.0 - instance.idx, False)
    if instance.request_type == "loglikelihood_rolling":
        return -12.0
    target = task.doc_to_target(doc)
    if isinstance(target, list):
        target = target[0] if target else ""
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    return str(target)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """End what uses too much CPU; a task's own loops may have no end on rows that are none of its."""

    def stop(*_: Any) -> None:
        raise _TookTooLong(f"{_TRY_S} s of CPU")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, _TRY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _StandInMetric:
    """A metric of `evaluate` that would be loaded from the Hub."""

    def __init__(self, name: str) -> None:
        self._name = name

    def compute(self, **_: Any) -> dict[str, float]:
        return dict.fromkeys((self._name, "score", "rouge1", "rouge2", "rougeL", "rougeLsum", "bleu"), 0.5)

    def add_batch(self, **_: Any) -> None:
        pass


@contextlib.contextmanager
def offline() -> Iterator[set[str]]:
    """Reach no Hub meanwhile; the names of the metrics of `evaluate` that are asked for are collected."""
    asked: set[str] = set()

    def load(name: str, *_: Any, **__: Any) -> _StandInMetric:
        asked.add(str(name))
        return _StandInMetric(str(name))

    own = evaluate.load
    evaluate.load = load
    datasets.disable_progress_bars()
    datasets.disable_caching()
    try:
        with only_cached_data():
            yield asked
    finally:
        evaluate.load = own
        datasets.enable_caching()


def _is_offline(error: BaseException) -> bool:
    return is_outage(error) or any(
        word in f"{type(error).__name__}: {error}"
        for word in ("OfflineModeIsEnabled", "offline mode", "Couldn't reach", "LocalEntryNotFoundError")
    )


def _reason(error: BaseException | None) -> Reason:
    """What stands against a task, by what was raised."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if isinstance(error, CodeEnds):
        return Reason("ends", error.said)
    if isinstance(error, TaskError):
        if "runs code" in text:
            return Reason("runs_code")
        if "punkt_tab" in text:
            return Reason("resource", "punkt_tab")
    if isinstance(error, _NotConverted):
        return Reason("no_choice", str(error))
    if isinstance(error, Exception) and missing_function(error) is not None:
        return Reason("broken", text)
    chain = error
    while chain is not None:
        if isinstance(chain, ModuleNotFoundError) and chain.name:
            return Reason("package", chain.name.partition(".")[0])
        if _is_offline(chain):
            return Reason("hub_code")
        found = _NLTK.search(str(chain)) if isinstance(chain, LookupError) else None
        if found is not None:
            return Reason("resource", found[1])
        chain = chain.__cause__ or chain.__context__
    if isinstance(error, _NoData):
        return Reason("own_data", text)
    if isinstance(error, ImportError):
        return Reason("package", text)
    if isinstance(error, _TookTooLong):
        return Reason("not_judged", "no rows were found on which it ends")
    return Reason("not_judged", text)


# --- tasks that differ in names and wording alone ---------------------------------------------------------


def likeness(entry: Entry) -> str | None:
    """What tasks have in common that need the same rows and get the same verdict; None where unknown.

    Texts of templates differ between languages, and the name that a function filters rows by between
    subjects; neither decides what a task needs.
    """
    with offline(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            config = load_config(entry)
        except Exception as error:
            return repr(_reason(error))
    parts = [str(Path(entry.path or "").parent)]
    parts += [f"{key}={_form(config[key])}" for key in sorted(config) if key not in _NAMES_ONLY]
    return "\n".join(parts)


def _form(value: Any) -> str:
    if isinstance(value, functools.partial):
        return f"partial {_form(value.func)} {[type(v).__name__ for v in value.keywords.values()]}"
    if inspect.isfunction(value):
        return f"{value.__code__.co_filename}:{value.__code__.co_firstlineno}"
    if isinstance(value, Mapping):
        return repr({str(k): _form_of_samples(v) if k == "samples" else _form(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return f"{len(value)} {len(set(map(repr, value)))} {sorted({_form(v) for v in value})[:40]}"
    if isinstance(value, str):
        return _form_of_template(value)
    return repr(value)


def _form_of_samples(value: Any) -> str:
    """Examples that a YAML gives itself: what they have, not what they say."""
    if isinstance(value, Mapping):
        return repr({str(k): _form_of_samples(v) for k, v in value.items()})
    if isinstance(value, list):
        return str(sorted(set(map(_form_of_samples, value))))
    return _form(value) if callable(value) else type(value).__name__


def _form_of_template(text: str) -> str:
    """A template with each word of its own text replaced: letters of options, lines and marks stay."""
    try:
        tokens = list(template_environment().lex(text))
    except TemplateError:
        return text
    if len(tokens) == 1 and re.fullmatch(r"[\w./-]+", text):
        return text  # the name of a column, a metric, a data set
    return "".join(re.sub(r"[^\W\d_]{2,}", "w", part) if kind == "data" else part for _, kind, part in tokens)


def _columns(config: Mapping[str, Any]) -> list[str]:
    """The columns that a task's templates name, in the order in which they do."""
    found: dict[str, None] = {}
    shown = config.get("fewshot_config")
    for source in (config, shown if isinstance(shown, Mapping) else {}):
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix"):
            text = source.get(key)
            if not isinstance(text, str):
                continue
            try:
                names = meta.find_undeclared_variables(template_environment().parse(text))
            except TemplateError:
                continue
            found.update(dict.fromkeys(sorted(names, key=text.find)))
            if not names and key != "description" and re.fullmatch(r"[A-Za-z_]\w*", text):
                found[text] = None
    return list(found)


def _constants(config: Mapping[str, Any]) -> list[str]:
    """Texts that a task's functions hold, which a column may have to be for a row to be kept."""
    found: dict[str, None] = {}
    for value in config.values():
        if callable(value):
            _collect(value, found, 0)
    if isinstance(config.get("dataset_name"), str):
        found[config["dataset_name"]] = None
    texts = [text for text in found if 0 < len(text) < 50][:60]
    joined = [begin + end for begin in texts if begin[-1] in "._-/:" for end in texts if end != begin]
    return texts + joined[:60]


def _collect(value: Any, found: dict[str, None], depth: int) -> None:
    if isinstance(value, str):
        found[value] = None
    elif depth > 4:
        return
    elif isinstance(value, Mapping):
        for key, held in list(value.items())[:20]:
            _collect(key, found, depth + 1)
            _collect(held, found, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for held in list(value)[:20]:
            _collect(held, found, depth + 1)
    elif isinstance(value, functools.partial):
        for held in (*value.args, *value.keywords.values(), value.func):
            _collect(held, found, depth + 1)
    elif isinstance(value, types.CodeType):
        for held in value.co_consts:
            _collect(held, found, depth + 1)
    elif isinstance(value, types.FunctionType):
        _collect_function(value, found, depth)


def _collect_function(function: Callable[..., Any], found: dict[str, None], depth: int) -> None:
    known: Any = function
    for cell in known.__closure__ or ():
        with contextlib.suppress(ValueError):  # still empty
            _collect(cell.cell_contents, found, depth + 1)
    for held in (known.__defaults__, known.__kwdefaults__, known.__code__):
        _collect(held, found, depth + 1)
    for name in known.__code__.co_names:
        held = known.__globals__.get(name)
        if not isinstance(held, types.FunctionType) or held.__module__ == known.__module__:
            _collect(held, found, depth + 1)


__all__ = ["Kind", "judge", "likeness", "load_config", "offline"]
