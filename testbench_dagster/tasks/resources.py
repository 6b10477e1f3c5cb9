"""Data files that some lm-eval tasks need beside their dataset, found offline or named in one clear error.

``punkt_tab`` (ifeval's sentence splitter): lm-eval would download it at import. It is looked for in
``NLTK_DATA``, in ``TESTBENCH_HOME/nltk_data``, in nltk's own folders and in installed packages that carry it
(``llama-index-core``).
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from testbench_dagster.config import HOME_ENV
from testbench_dagster.core.errors import TaskError

_CARRIERS = ("llama_index/core/_static/nltk_cache",)


def prepare_offline_resources(folder: Path, task: str) -> None:
    """Make the resources the task code in ``folder`` asks for available, before it is imported.

    Raises:
        TaskError: one is missing; the message says where it may be put.
    """
    if not mentions(folder, "punkt_tab"):
        return
    import nltk

    for candidate in _nltk_folders():
        if candidate.is_dir() and str(candidate) not in nltk.data.path:
            nltk.data.path.append(str(candidate))
    try:
        nltk.data.find("tokenizers/punkt_tab/english")
    except LookupError:
        raise TaskError(
            f"task {task!r} needs nltk's punkt_tab data, which is not installed. With network run "
            "`python -m nltk.downloader punkt_tab`; without it put the folder tokenizers/punkt_tab into "
            "$NLTK_DATA or $TESTBENCH_HOME/nltk_data, or `pip install --no-deps llama-index-core==0.14.25`, "
            "which carries it"
        ) from None


def _nltk_folders() -> list[Path]:
    folders = []
    if home := os.environ.get(HOME_ENV):
        folders.append(Path(home) / "nltk_data")
    folders += [Path(entry) / carrier for entry in sys.path if entry for carrier in _CARRIERS]
    return folders


@lru_cache(maxsize=256)
def mentions(folder: Path, word: str) -> bool:
    """Whether the Python code in a folder holds a word."""
    return any(word in path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*.py"))
