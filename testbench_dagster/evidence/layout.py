"""What a bundle looks like: its files, its format version, and the bounds within which it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from testbench_dagster.core.errors import TestbenchError

KIND = "testbench_dagster evidence"
#: Raised when older versions of this package could not read the result, or would call it different: 2 says
#: what made the windows, the supplier's deadline, and what became of docs; 3 says which answers a scorer that
#: was well could not digest.
FORMAT = 3

MANIFEST = "manifest.json"
PROMPTS = "prompts.jsonl"
ATTEMPTS = "attempts.jsonl"
SCORES = "scores.jsonl"
#: Answers that the scorer could not digest although it was well: their docs are open. Format 2 lacks it.
UNDECIDED = "undecided.jsonl"
#: What became of docs that were not all answered, what shows it, and when runs left the supplier.
STATES = "states.jsonl"
WITNESSES = "witnesses.jsonl"
LANE_ENDS = "lane_ends.jsonl"
_TASK_FILE = re.compile(r"tasks/[A-Za-z0-9_.~%-]+\.(json|docs\.jsonl)")
_DEFINITION_FILE = re.compile(r"definitions/(\d{1,3})/((?:[^/\\\x00-\x1f:]+/)*[^/\\\x00-\x1f:]+)")

#: Packages that take part in scoring somewhere in lm-eval's tasks; their versions go into the manifest.
SCORING_PACKAGES = (
    "lm_eval",
    "antlr4-python3-runtime",
    "datasets",
    "evaluate",
    "immutabledict",
    "jinja2",
    "langdetect",
    "math-verify",
    "more-itertools",
    "nltk",
    "numpy",
    "orjson",
    "rouge-score",
    "sacrebleu",
    "scikit-learn",
    "scipy",
    "sympy",
)

MEBIBYTE = 1 << 20
MAX_MEMBERS = 20_000
#: One line may hold a raw answer of 15 MB in base64, or a doc.
MAX_LINE_BYTES = 64 * MEBIBYTE
#: Files read as a whole: the manifest, a task's registration, a task definition.
MAX_WHOLE_BYTES = 64 * MEBIBYTE
#: Of zip's central directory, which is read before anything else.
MAX_DIRECTORY_BYTES = 16 * MEBIBYTE
#: Uncompressed bytes of a whole bundle, unless told otherwise.
MAX_TOTAL_MB = 4096


class BundleError(TestbenchError):
    """A file is no evidence bundle, is damaged, or was written by a newer version."""


@dataclass(frozen=True)
class DefinitionFile:
    """Place of a bundled definition: number of its folder in ``task_paths``, and the path in it."""

    folder: int
    path: str


def task_file(task: str) -> str:
    """Name of the file with a task's registration."""
    return f"tasks/{quote(task, safe='')}.json"


def docs_file(task: str) -> str:
    """Name of the file with a task's docs (questions and targets)."""
    return f"tasks/{quote(task, safe='')}.docs.jsonl"


def definition_file(folder: int, path: str) -> str:
    """Name of a bundled definition."""
    return f"definitions/{folder}/{path}"


def parsed_definition(name: str) -> DefinitionFile | None:
    """The place a file's name stands for; None unless it is a safe name of a definition."""
    found = _DEFINITION_FILE.fullmatch(name)
    if found is None or any(part in (".", "..") for part in name.split("/")):
        return None
    return DefinitionFile(int(found[1]), found[2])


def is_member(name: str) -> bool:
    """Whether a bundle may hold a file of this name."""
    if name in (MANIFEST, PROMPTS, ATTEMPTS, SCORES, UNDECIDED, STATES, WITNESSES, LANE_ENDS):
        return True
    return _TASK_FILE.fullmatch(name) is not None or parsed_definition(name) is not None
