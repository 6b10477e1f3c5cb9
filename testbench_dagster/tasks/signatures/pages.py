"""Signatures of pages: SHA-256 of their canonical JSON, without what says nothing about the model.

The rules are those of pocket-ml-testbench, save that it loaded the files with transformers and hashed what
that wrote; here nothing is loaded, run or downloaded, and the hash is of what the supplier sent.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

#: Levels of objects in which the two keys below are looked for: the page, its files, what these hold.
_LEVELS = 3


def page_signature(text: str) -> tuple[str, str]:
    """Return the signature of a page's JSON object and the canonical JSON it is the SHA-256 of.

    Canonical is compact UTF-8 with sorted keys; ``_name_or_path`` is blanked (it is a path on the machine the
    model was loaded on), ``model_max_length`` written as text (some software writes its huge default as a
    float and some as an integer).

    Raises:
        ValueError: ``text`` is no JSON object.
    """
    page = orjson.loads(text)
    if not isinstance(page, dict):
        raise ValueError("the page is no JSON object")
    canonical = orjson.dumps(_plain(page, _LEVELS), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest(), canonical.decode()


def _plain(page: dict[str, Any], levels: int) -> dict[str, Any]:
    plain = {}
    for key, value in page.items():
        if key == "_name_or_path":
            value = ""
        elif key == "model_max_length" and isinstance(value, (int, float)):
            # as a float both spellings are one number, and those that fit it are exact
            value = f"{float(value):.17g}"
        elif levels > 1 and isinstance(value, dict):
            value = _plain(value, levels - 1)
        plain[key] = value
    return plain
