"""Files that are no bundles, damaged ones, and ones made to harm whoever opens them."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.evidence.layout import BundleError, is_member, parsed_definition
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.forging import contents, edited, write


def refused(path: Path, message: str, **options: Any) -> None:
    before = set(os.listdir(path.parent))
    with pytest.raises(BundleError, match=message):
        rescore(path, **options)
    assert set(os.listdir(path.parent)) == before


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.zip", "cannot be read: No such file")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", "is no evidence bundle")
    (tmp_path / "text").write_bytes(b"hello" * 100)
    refused(tmp_path / "text", "is no evidence bundle")
    refused(tmp_path, "cannot be read")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    refused(tmp_path / "other.zip", "is no evidence bundle: it holds a file 'readme.txt'")
    with zipfile.ZipFile(tmp_path / "void.zip", "w"):
        pass
    refused(tmp_path / "void.zip", "manifest.json is missing")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_file_is_damaged(share: float, bundle: Path, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: int(len(data) * share)])
    refused(tmp_path / "cut.zip", "is no evidence bundle, or its end is missing")


@pytest.mark.parametrize("at", [0.02, 0.2, 0.4, 0.6])
def test_a_flipped_byte_never_passes(at: float, bundle: Path, tmp_path: Path) -> None:
    data = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as file:
        largest = max(file.infolist(), key=lambda one: one.compress_size)
    name, extra = struct.unpack_from("<HH", data, largest.header_offset + 26)
    begins = largest.header_offset + 30 + name + extra
    data[begins + int(largest.compress_size * at)] ^= 0x55
    (tmp_path / "flipped.zip").write_bytes(bytes(data))
    refused(tmp_path / "flipped.zip", "damaged|cannot be read")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/etc/passwd",
        "definitions/0/../../evil.py",
        "definitions/0//x.py",
        "definitions/../x.py",
        "definitions/0/a\\b.py",
        "definitions/0/./x.py",
        "definitions/9999/x.py",
        "definitions/0/C:x.py",
        "tasks/../../x.json",
        "tasks/a/b.json",
        "attempts.jsonl/x",
        "manifest.json\n",
    ],
)
def test_no_file_lies_outside_of_its_place(name: str, bundle: Path, tmp_path: Path) -> None:
    assert not is_member(name)
    forged = write(tmp_path / "x.zip", {**contents(bundle), name: b"x"})
    refused(forged, "is no evidence bundle: it holds a file", trust_code=True)


def test_places_of_definitions() -> None:
    place = parsed_definition("definitions/12/deep er/_template_yaml")
    assert place is not None and (place.folder, place.path) == (12, "deep er/_template_yaml")


def test_a_bomb_is_stopped_at_the_limit(bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    files["attempts.jsonl"] += b"\n" * (20 << 20)
    forged = write(tmp_path / "bomb.zip", files)
    assert forged.stat().st_size < 100_000
    refused(forged, "unpacks to more than 10 MB", max_mb=10)


def test_sizes_in_the_directory_are_not_believed(bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    files["attempts.jsonl"] += b" " * (20 << 20)
    data = bytearray(write(tmp_path / "lie.zip", files).read_bytes())
    # the uncompressed size in the central directory: what zipfile reports before it reads
    at = data.rfind(b"attempts.jsonl") - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 24 : at + 28] = struct.pack("<L", 10)
    (tmp_path / "lie.zip").write_bytes(bytes(data))
    refused(tmp_path / "lie.zip", "damaged|more than 10 MB|cannot be read", max_mb=10)


def test_a_huge_directory_is_not_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(20_001):
            file.writestr(f"definitions/0/{number}.py", b"")
    (tmp_path / "many.zip").write_bytes(buffer.getvalue())
    refused(tmp_path / "many.zip", "holds more files than a bundle may")


def test_a_file_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    forged = write(tmp_path / "x.zip", contents(bundle))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(forged, "a") as file:
        file.writestr("scores.jsonl", b"")
    refused(forged, "holds scores.jsonl twice")


def test_what_the_manifest_does_not_list_is_refused(bundle: Path, tmp_path: Path) -> None:
    files = {**contents(bundle), "tasks/more.json": b"{}"}
    refused(
        write(tmp_path / "x.zip", files, sealed=False), "tasks/more.json, which its manifest does not list"
    )
    less = {name: data for name, data in contents(bundle).items() if name != "scores.jsonl"}
    refused(
        write(tmp_path / "y.zip", less, sealed=False), "scores.jsonl is missing, which its manifest lists"
    )
    refused(write(tmp_path / "z.zip", less), "scores.jsonl is missing")


def changed_manifest(bundle: Path, target: Path, **changes: Any) -> Path:
    files = contents(bundle)
    manifest = {**json.loads(files["manifest.json"]), **changes}
    return write(target, {**files, "manifest.json": json.dumps(manifest).encode()}, sealed=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 4}, "has format 4, this version of testbench_dagster reads up to 3; upgrade it"),
        ({"format": "1"}, "has no format version"),
        ({"kind": "holiday pictures"}, "is no evidence bundle"),
        ({"made_at": "yesterday"}, "made_at is no time"),
        ({"made_at": 7}, "made_at: Input should be a valid string"),
        ({"supplier": {}}, "supplier.key: Field required"),
        ({"tasks": ["sums", "other"]}, "tasks/other.json is missing"),
        ({"window_docs": 0}, "window_docs"),
    ],
)
def test_a_manifest_that_says_nonsense_is_refused(
    changes: dict[str, Any], message: str, bundle: Path, tmp_path: Path
) -> None:
    refused(changed_manifest(bundle, tmp_path / "x.zip", **changes), message, trust_code=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "line 1 of attempts.jsonl is no valid JSON"),
        (b"[1]", "line 1 of attempts.jsonl is no JSON object"),
        (
            b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            "line 1 of attempts.jsonl is no valid JSON: too deep",
        ),
        (b'{"_id": 5}', "attempts.jsonl:1._id is int, not str"),
        (b'{"_id": "a"}', "attempts.jsonl:1.supplier is NoneType, not str"),
        (b'{"_id": "a", "x": {"$code": "1"}}', "no known way to write a value"),
        (b'{"_id": "a", "x": 99999999999999999999}', "larger than any"),
        (b'{"_id": "a", "body_base64": "!"}', "is no base64"),
        (b'{"_id": "a", "finished_at": "2031-01-01"}', "has no time zone"),
    ],
    ids=lambda value: value[:20].decode() if isinstance(value, bytes) else "",
)
def test_records_that_are_none_are_refused(line: bytes, message: str, bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    files["attempts.jsonl"] = line + b"\n" + files["attempts.jsonl"]
    refused(write(tmp_path / "x.zip", files), message)


@pytest.mark.parametrize(
    "changes",
    [{"flags": {}}, {"flags": {"filters": 7, "metrics": [], "output_type": 3}}, {"n_docs": 10**18}],
    ids=str,
)
def test_registrations_that_do_not_fit_are_no_crash(
    changes: dict[str, Any], bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    files = contents(bundle)
    task = json.loads(files["tasks/starter_reading.json"])
    task["registration"] |= changes
    files["tasks/starter_reading.json"] = json.dumps(task).encode()
    forged = write(tmp_path / "x.zip", files)
    report = rescore(forged, worker=worker)
    if "flags" in changes:
        (verdict,) = (t for t in report.tasks if t.task == "starter_reading")
        assert verdict.unchecked == verdict.docs == 18 and verdict.why
    else:
        assert "number of docs" in [f.what for f in report.findings]
    assert not report.equal


def test_two_records_with_one_id_are_refused(bundle: Path, tmp_path: Path) -> None:
    forged = edited(bundle, tmp_path / "x.zip", "attempts.jsonl", lambda rows: rows.append(rows[0]))
    refused(forged, "two records of attempts have the same id")


def test_the_command_says_why_a_file_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello" * 100)
    done = subprocess.run(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", "rescore", "text"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: text is no evidence bundle, or its end is missing\n"


def test_code_that_models_wrote_is_never_run(bundle: Path, tmp_path: Path, worker: FrameworkWorker) -> None:
    files = contents(bundle)
    files["definitions/0/sums.yaml"] += b"unsafe_code: true\n"
    report = rescore(write(tmp_path / "x.zip", files), trust_code=True, worker=worker)
    sums = report.tasks[0]
    assert (sums.unchecked, sums.equal) == (11, 0)
    assert "runs code that the model wrote" in (sums.why or "")
