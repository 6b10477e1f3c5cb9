"""What of `testbench.yaml` changes what is measured or how it counts, in plain entries that can be compared.

Two machines that share a store must agree on these. Left out is what each may have of its own: names of
variables and files that hold secrets, proxies and authorities, nodes that the chain is read from, paths, when
sensors and schedules of the platform run, where the board is. Files go in elsewhere, by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from testbench_dagster.config.asking import AskingSettings
from testbench_dagster.config.fields import RelaySettings
from testbench_dagster.config.services import AppConfig, GatewayConfig, ServiceConfig
from testbench_dagster.config.settings import Settings, SupplierConfig, SupplierSource, TaskConfig
from testbench_dagster.core.wording import counted

#: Fields that say nothing of what is measured, by the model that has them.
_OWN: dict[type[BaseModel], frozenset[str]] = {
    Settings: frozenset({"automation", "board", "task_paths", "taxonomies", "suppliers", "supplier_sources"}),
    AskingSettings: frozenset({"proxy", "proxy_env", "tls"}),
    SupplierConfig: frozenset({"api_key_env"}),
    SupplierSource: frozenset({"file", "api_key_env", "token_env", "proxy", "proxy_env", "tls", "timeout_s"}),
    ServiceConfig: frozenset({"nodes"}),
    AppConfig: frozenset({"key_env", "key_file"}),
    GatewayConfig: frozenset({"token_env"}),
    TaskConfig: frozenset({"data"}),
}
#: Fields whose values are names of variables; who is sent what counts, under which name it is found does not.
_NAMES_ALONE = frozenset({"headers", "query_env"})
_LONGEST = 120  # characters of a value that are shown; longer ones go in as a digest
_MOST_SUPPLIERS = 200  # that have entries of their own
_MOST = 2_000  # entries; more are put together by the block they stand in


def stated_settings(settings: Settings) -> dict[str, str]:
    """Everything that two machines must agree on, by key, in a form that people can read.

    The order of keys, comments and what is spelled out although it is so by default make no difference.
    """
    found = dict(_of_model("", settings))
    suppliers = {one.key: dict(_of_model(f"suppliers.{one.key}", one)) for one in settings.suppliers}
    if len(suppliers) > _MOST_SUPPLIERS:
        found["suppliers"] = f"{len(suppliers)}, {digest(sorted(suppliers.items()))}"
    else:
        for entries in suppliers.values():
            found |= entries
    for source in settings.supplier_sources:
        found |= _of_source(source)
    for name in settings.taxonomies:
        if name.startswith("builtin:"):  # of our own package, whose version is compared
            found[f"taxonomies.{name}"] = "used"
    found["tasks"] = _shown([task.alias or task.name for task in settings.tasks])
    return found if len(found) <= _MOST else _by_block(found)


def fingerprint(entries: Mapping[str, str]) -> str:
    """One short text that differs whenever an entry does, whatever their order."""
    return digest(sorted(entries.items()))


def digest(value: Any) -> str:
    """The first 12 digits of a hash of plain values."""
    return hashlib.sha256(_json(value).encode()).hexdigest()[:12]


def _of_source(source: SupplierSource) -> Iterator[tuple[str, str]]:
    where = f"supplier_sources.{source.label.partition('?')[0]}"
    yield where, "used"
    for key, value in _of_model(where, source):
        # what follows the path of a URL may be a key
        yield key, (_without_query(value) if key == f"{where}.url" else value)


def _without_query(value: str) -> str:
    plain, mark, _ = value.partition("?")
    return f"{plain}?{digest(value)}" if mark else value


def _of_model(where: str, model: BaseModel) -> Iterator[tuple[str, str]]:
    """The entries of a block; what is unset and has no value is none, what was set to null is."""
    own = frozenset[str]().union(*(names for kind, names in _OWN.items() if isinstance(model, kind)))
    for name in type(model).model_fields:
        value = getattr(model, name)
        given = name in model.model_fields_set
        if name in own or (value is None and not given):
            continue
        if isinstance(model, RelaySettings) and not given:
            continue  # deadlines that are not set follow the answers, whatever their default is
        key = f"{where}.{name}" if where else name
        if name == "tasks" and isinstance(model, Settings):
            yield from _of_tasks(model.tasks)
        elif name in _NAMES_ALONE and isinstance(value, Mapping):
            if value:
                yield key, _shown(sorted((sent, held is not None) for sent, held in value.items()))
        else:
            yield from _of_value(key, value)


def _of_tasks(tasks: Sequence[TaskConfig]) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for task in tasks:
        name = task.alias or task.name
        seen[name] = seen.get(name, 0) + 1
        where = f"tasks.{name}" if seen[name] == 1 else f"tasks.{name} ({seen[name]})"
        yield from _of_model(where, task)
        if task.row_filter:
            yield f"{where}.where", _shown(task.row_filter)


def _of_value(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        yield from _of_model(key, value)
    elif isinstance(value, Mapping) and any(isinstance(item, BaseModel) for item in value.values()):
        for name, item in value.items():
            yield from _of_value(f"{key}.{name}", item)
            yield f"{key}.{name}", "used"
    elif isinstance(value, (list, tuple)) and any(isinstance(item, BaseModel) for item in value):
        for place, item in enumerate(value):
            yield from _of_value(f"{key}[{place}]", item)
    elif value not in ({}, [], ()):
        yield key, _shown(value)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _json(_whole(value))
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({digest(text)})"


def _whole(value: Any) -> Any:
    """The same with 72 for 72.0: a number that is spelled out is no other than the one by default."""
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def _by_block(entries: Mapping[str, str]) -> dict[str, str]:
    """One entry for each block: of thousands nobody reads the parts."""
    blocks: dict[str, list[tuple[str, str]]] = {}
    for key, value in sorted(entries.items()):
        blocks.setdefault(".".join(key.split(".")[:2]), []).append((key, value))
    found = {block: f"{counted(len(own), 'setting')}, {digest(own)}" for block, own in blocks.items()}
    if len(found) <= _MOST:
        return found
    return {"testbench.yaml": f"{counted(len(entries), 'setting')}, {digest(sorted(entries.items()))}"}
