"""The docs of a task as texts that are kept: images as their files, whatever a framework decodes them to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Image

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.tasks.lm_eval_adapter.doc_json import StoredImage, dump_doc


def _kinds(*names: str) -> tuple[Any, ...]:
    """Those of some features that the installed `datasets` has as classes."""
    return tuple(kind for name in names if isinstance(kind := getattr(datasets, name, None), type))


_MEDIA = _kinds("Image", "Audio", "Video", "Pdf")
_LISTS = _kinds("List", "LargeList", "Sequence")


def doc_texts(task: str, docs: Iterable[Any]) -> list[str]:
    """Each doc as JSON text.

    Raises:
        TaskInputError: one holds a value that cannot be kept.
    """
    found = []
    for number, doc in enumerate(_as_files(docs)):
        try:
            found.append(dump_doc(doc))
        except (TypeError, ValueError) as error:
            raise TaskInputError(
                f"task {task!r}: doc {number} cannot be kept as JSON: {error}; "
                "leave the column out of the data, or let process_docs turn it into text"
            ) from None
    return found


def _as_files(docs: Iterable[Any]) -> Iterator[Any]:
    """The docs, images as :class:`StoredImage`, sound and films as bytes and path."""
    if not isinstance(docs, Dataset):
        yield from docs
        return
    files: Any = docs
    media = {name: feature for name, feature in files.features.items() if _has_media(feature)}
    for name, feature in media.items():
        files = files.cast_column(name, _undecoded(feature))
    for doc in files:
        yield {**doc, **{name: _stored(feature, doc[name]) for name, feature in media.items()}}


def _has_media(feature: Any) -> bool:
    return any(isinstance(part, _MEDIA) for part in _parts(feature))


def _parts(feature: Any) -> Iterator[Any]:
    if isinstance(feature, dict):
        for part in feature.values():
            yield from _parts(part)
    elif isinstance(feature, _LISTS):
        yield from _parts(feature.feature)
    else:
        yield feature


def _undecoded(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _undecoded(part) for name, part in feature.items()}
    if isinstance(feature, _LISTS):
        length = {"length": feature.length} if hasattr(feature, "length") else {}
        return type(feature)(_undecoded(feature.feature), **length)
    if isinstance(feature, Image):
        return Image(mode=feature.mode, decode=False)
    return type(feature)(decode=False) if isinstance(feature, _MEDIA) else feature


def _stored(feature: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(feature, dict):
        return {name: _stored(part, value[name]) for name, part in feature.items()}
    if isinstance(feature, _LISTS):
        return [_stored(feature.feature, one) for one in value]
    if not isinstance(feature, Image) or not isinstance(value, Mapping):
        return value
    data = value["bytes"]
    if data is None and value["path"] is not None and Path(value["path"]).is_file():
        data = Path(value["path"]).read_bytes()  # so that the doc stands for itself
    return value if data is None else StoredImage(data, value["path"], feature.mode)
