"""Bundles that somebody changed: records edited, dropped or made up, with the hashes put right or not."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Records = list[dict[str, Any]]


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def records(data: bytes) -> Records:
    return [json.loads(line) for line in data.splitlines()]


def lines(rows: Records) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(path: Path, files: dict[str, bytes], *, sealed: bool = True) -> Path:
    """Write a bundle; ``sealed``: its manifest has the hashes of what is now in it."""
    if sealed:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
            if name != "manifest.json"
        }
        files = {**files, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def edited(
    source: Path, target: Path, name: str, change: Callable[[Records], None], *, sealed: bool = True
) -> Path:
    """A copy of a bundle with the records of one file changed in place."""
    files = contents(source)
    rows = records(files[name])
    change(rows)
    return write(target, {**files, name: lines(rows)}, sealed=sealed)


def say(attempt: dict[str, Any], text: str) -> None:
    """Let an attempt have answered something else, its hash put right."""
    body = json.loads(base64.b64decode(attempt["body_base64"]))
    body["choices"][0]["message"]["content"] = text
    data = json.dumps(body).encode()
    attempt["body_base64"] = base64.b64encode(data).decode()
    attempt["body_sha256"] = hashlib.sha256(data).hexdigest()
    attempt["body_bytes"] = len(data)
