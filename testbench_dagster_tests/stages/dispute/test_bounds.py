"""The bounds within which a bundle is read, each with the last that is taken and the first that is not."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testbench_dagster.core.errors import StoreError
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.archive import BundleReader, BundleWriter, json_line, json_text
from testbench_dagster.evidence.definitions import own_definitions
from testbench_dagster.evidence.facts import read_manifest
from testbench_dagster.evidence.layout import BundleError, is_member, parsed_definition
from testbench_dagster.evidence.records import plain, restored
from testbench_dagster.evidence.report import MAX_FINDINGS, Finding, Report, TaskVerdict
from testbench_dagster_tests.records import changeable
from testbench_dagster_tests.tasks.quiz import spec_of


def test_records_stay_what_they_are() -> None:
    assert changeable("testbench_dagster.evidence") <= {"Definitions", "_Stock", "TaskVerdict", "Report"}


def test_the_documented_bounds() -> None:
    assert layout.MEBIBYTE == 1024 * 1024
    assert (layout.MAX_MEMBERS, layout.MAX_TOTAL_MB, MAX_FINDINGS) == (20_000, 4096, 1000)
    assert layout.MAX_LINE_BYTES == layout.MAX_WHOLE_BYTES == 67_108_864
    assert layout.MAX_DIRECTORY_BYTES == 16_777_216
    assert layout.FORMAT == 3


def written(path: Path, **files: bytes) -> Path:
    """A bundle with a manifest and these files of docs."""
    with BundleWriter(path) as writer:
        writer.whole(layout.MANIFEST, b"{}")
        for name, data in files.items():
            writer.whole(layout.docs_file(name), data)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with BundleWriter(path) as writer:
        writer.whole(layout.MANIFEST, json_text({"b": 1, "a": "é"}))
        with writer.lines(layout.PROMPTS) as lines:
            lines.write({"b": 1, "a": float("inf")})
            lines.write({})
        sizes = {name: member.size for name, member in writer.members.items()}
    assert json_line({"b": 1, "a": "é"}) == b'{"b":1,"a":"\\u00e9"}\n'
    assert json_text({"b": 1, "a": "é"}) == b'{\n "a": "\\u00e9",\n "b": 1\n}\n'
    with BundleReader(path) as reader:
        assert reader.members == writer.members and sizes == {n: m.size for n, m in reader.members.items()}
        assert reader.json(layout.MANIFEST) == {"a": "é", "b": 1}
        assert list(reader.records(layout.PROMPTS)) == [{"b": 1, "a": float("inf")}, {}]
        with pytest.raises(BundleError, match=r"scores\.jsonl is missing"):
            list(reader.records(layout.SCORES))
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            assert (info.date_time, info.external_attr >> 16, info.create_system) == (
                (1980, 1, 1, 0, 0, 0),
                0o644,
                3,
            )
            assert info.compress_type == zipfile.ZIP_DEFLATED
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.zip", ten=b"x" * 10, eleven=b"x" * 11)
    monkeypatch.setattr(layout, "MAX_WHOLE_BYTES", 10)
    with BundleReader(path) as reader:
        assert reader.whole(layout.docs_file("ten")) == b"x" * 10
        with pytest.raises(BundleError, match=r"eleven\.docs\.jsonl is too large \(11 bytes\)"):
            reader.whole(layout.docs_file("eleven"))


def test_a_line_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(
        tmp_path / "a.zip", fits=b'{"a":1}\n{"a":12}\n', last=b'{"a":12}', beyond=b'{}\n{"a":123}\n'
    )
    monkeypatch.setattr(layout, "MAX_LINE_BYTES", 9)
    with BundleReader(path) as reader:
        assert list(reader.records(layout.docs_file("fits"))) == [{"a": 1}, {"a": 12}]
        assert list(reader.records(layout.docs_file("last"))) == [{"a": 12}]
        with pytest.raises(BundleError, match=r"line 2 of .*beyond\.docs\.jsonl is too long"):
            list(reader.records(layout.docs_file("beyond")))


@pytest.mark.parametrize(("line", "said"), [
    (b"[]", "line 1 of tasks/t.docs.jsonl is no JSON object"),
    (b"{", "line 1 of tasks/t.docs.jsonl is no valid JSON: Expecting"),
    (b'{"a":' * 100_000, "line 1 of tasks/t.docs.jsonl is no valid JSON: too deep"),
])  # fmt: skip
def test_a_record_is_an_object(tmp_path: Path, line: bytes, said: str) -> None:
    with BundleReader(written(tmp_path / "a.zip", t=line)) as reader, pytest.raises(BundleError, match=said):
        list(reader.records(layout.docs_file("t")))


def test_a_bundle_has_a_largest_size(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", a=b"x" * 1000, b=b"x" * 998)  # and two of the manifest
    with BundleReader(path, 2000) as reader:
        assert sum(member.size for member in reader.members.values()) == 2000
    with pytest.raises(BundleError, match="unpacks to more than 0 MB"):
        BundleReader(path, 1999)
    big = written(tmp_path / "b.zip", a=b"x" * (3 * layout.MEBIBYTE))
    with pytest.raises(BundleError, match="unpacks to more than 2 MB"):
        BundleReader(big, 2 * layout.MEBIBYTE)


def test_a_bundle_has_a_largest_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.zip", a=b"x", b=b"y")
    for most, fits in ((3, True), (2, False)):
        monkeypatch.setattr(layout, "MAX_MEMBERS", most)
        if fits:
            BundleReader(path).__exit__()
        else:
            with pytest.raises(BundleError, match="holds more files than a bundle may"):
                BundleReader(path)


def test_the_directory_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.zip", a=b"x")
    (directory,) = struct.unpack("<L", path.read_bytes()[-10:-6])
    monkeypatch.setattr(layout, "MAX_DIRECTORY_BYTES", directory)
    BundleReader(path).__exit__()
    monkeypatch.setattr(layout, "MAX_DIRECTORY_BYTES", directory - 1)
    with pytest.raises(BundleError, match="holds more files than a bundle may"):
        BundleReader(path)


def test_the_end_of_a_file_says_what_it_is(tmp_path: Path) -> None:
    data = written(tmp_path / "a.zip").read_bytes()
    for name, odd, said in (
        ("short", data[-21:], "is no evidence bundle, or its end is missing"),
        ("comment", data[:-2] + b"\x01\x00x", "is no evidence bundle, or its end is missing"),
        (
            "zip64",
            data[:-22] + b"PK\x06\x07" + b"\x00" * 16 + data[-22:],
            "larger than 4 GiB or a zip file of another",
        ),
    ):
        (tmp_path / name).write_bytes(odd)
        with pytest.raises(BundleError, match=said):
            BundleReader(tmp_path / name)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory; choose another --out"):
        written(tmp_path / "nowhere" / "a.zip")

    def stopped() -> None:
        with BundleWriter(tmp_path / "a.zip") as writer:
            writer.whole(layout.MANIFEST, b"{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_names_of_files() -> None:
    assert layout.task_file("a/b é") == "tasks/a%2Fb%20%C3%A9.json"
    assert layout.docs_file("a") == "tasks/a.docs.jsonl" and is_member("tasks/a.docs.jsonl")
    assert is_member("definitions/999/x") and not is_member("definitions/1000/x")
    assert parsed_definition("definitions/7/a/b.yaml") == layout.DefinitionFile(7, "a/b.yaml")
    for name in ("definitions/7/a/../b", "definitions/7/.", "definitions//b", "definitions/7/", "tasks/.."):
        assert not is_member(name)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({}, "a.zip is no evidence bundle"),
        ({"kind": layout.KIND}, "manifest.json has no format version"),
        ({"kind": layout.KIND, "format": 0}, "manifest.json has no format version"),
        ({"kind": layout.KIND, "format": "1"}, "manifest.json has no format version"),
        ({"kind": layout.KIND, "format": 4, "product": "p" * 41}, f"has format 4, .* by {'p' * 40!r}"),
        ({"kind": layout.KIND, "format": 1}, "manifest.json: product: Field required"),
        (
            {"kind": layout.KIND, "format": 1, "files": {"x" * 61: {"size": 1}}},
            f"files.{'x' * 60}.sha256: ",
        ),
    ],
)
def test_what_a_manifest_has_to_say(tmp_path: Path, manifest: dict[str, object], said: str) -> None:
    supplier = {"key": "s@x", "address": "s", "service": "x", "api": "chat", "models": [], "status": "active"}
    complete: dict[str, object] = {"product": "p", "made_at": "", "simulation": False, "window_docs": 1}
    complete |= {"tasks": [], "docs": None, "counts": {}, "versions": {}, "windows": []}
    complete["supplier"] = supplier | {"echo_logprobs": None, "cut_at": None}
    with BundleWriter(tmp_path / "a.zip") as writer:
        writer.whole(layout.MANIFEST, json_text(complete | manifest if "files" in manifest else manifest))
    with BundleReader(tmp_path / "a.zip") as reader, pytest.raises(BundleError, match=said):
        read_manifest(reader)


@pytest.mark.parametrize(
    ("written_as", "said"),
    [
        (2**63, "is a number larger than any that is stored"),
        (-(2**63) - 1, "is a number larger than any that is stored"),
        ({"$time": "2026-01-01T00:00:00"}, "has no time zone"),
        ({"$time": "yesterday"}, "is no time in ISO 8601"),
        ({"$bytes": "%"}, "is no base64"),
        ({"$time": "2026-01-01T00:00:00Z", "a": 1}, "is no known way to write a value"),
        ({"$bytes": "", "a": 1}, "is no known way to write a value"),
        ({"$object": [], "a": 1}, "is no known way to write a value"),
        ({"$object": [["a"]]}, "is no known way to write a value"),
        ({"$object": [["a", 1, 2]]}, "is no known way to write a value"),
        ({"$object": [[1, 2]]}, "is no known way to write a value"),
        ({"$object": {"a": 1}}, "is no known way to write a value"),
        ({"$other": 1}, "is no known way to write a value"),
    ],
)
def test_values_that_no_store_holds_are_refused(written_as: object, said: str) -> None:
    for nested in (written_as, [written_as], {"a": written_as}):
        with pytest.raises(BundleError, match=f"here.*{said}"):
            restored(nested, "here")


def test_values_that_json_lacks_come_back() -> None:
    value = {"n": [2**63 - 1, -(2**63)], "$": b"x", "b": {"$x": None}, "t": datetime(2026, 1, 1, tzinfo=UTC)}
    assert restored(plain(value), "here") == value
    assert restored({"$object": []}, "here") == {}


def test_only_tasks_of_lm_eval_have_definitions_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("task: one\ndataset_path: x\n", encoding="utf-8")
    spec = spec_of("one", include=(str(tmp_path),))
    assert {place.path for place in own_definitions(spec).files} == {"one.yaml"}
    assert own_definitions(replace(spec, framework="signatures")).files == {}
    assert own_definitions(replace(spec, include=())).files == {}


# ------------------------------------------------------------------------------------------------- reports


def report(*tasks: TaskVerdict, findings: int = 0) -> Report:
    made = Report("f" * 64, "s@x", "2026-01-01", "0.1", tasks=list(tasks))
    for number in range(findings):
        made.add(Finding("doc", f"thing {number}"))
    return made


EQUAL = TaskVerdict("t", docs=1, equal=1, windows="equal")


def test_a_verdict_follows_from_what_was_checked() -> None:
    assert report(EQUAL).equal and report(EQUAL).verdict.startswith("EQUAL")
    for open_ in (
        TaskVerdict("t", unchecked=1, windows="equal"),
        TaskVerdict("t", windows="no framework"),
        TaskVerdict("t"),
    ):
        found = report(EQUAL, open_)
        assert not found.checked and not found.equal and found.verdict.startswith("INCOMPLETE")
    different = report(EQUAL, findings=1)
    assert different.checked and not different.equal
    assert different.verdict == "DIFFERENT: 1 thing is not as the bundle says."
    assert report(TaskVerdict("t", windows="different"), findings=1).checked
    assert different.to_json()["verdict"] == "different"


@pytest.mark.parametrize(("findings", "kept"), [(999, 999), (1000, 1000), (1001, 1000)])
def test_findings_beyond_a_thousand_are_counted(findings: int, kept: int) -> None:
    found = report(EQUAL, findings=findings)
    assert (found.n_findings, len(found.findings)) == (findings, kept)


@pytest.mark.parametrize(("findings", "more"), [(19, None), (20, None), (21, 1), (1500, 1480)])
def test_people_are_shown_the_first_twenty(findings: int, more: int | None) -> None:
    found = report(EQUAL, findings=findings)
    found.notes.append("read this")
    lines = list(found.lines())
    assert lines[0] == "note: read this" and lines[-1] == found.verdict
    shown = [line for line in lines if line.startswith("doc: thing")]
    assert shown == [f"doc: thing {n}" for n in range(min(findings, 20))]
    rest = [line for line in lines if line.startswith("…")]
    assert rest == ([] if more is None else [f"… and {more} more (--format json lists up to 1000)"])


def test_a_finding_as_a_line() -> None:
    assert str(Finding("doc", "hash", "t", 0, "a", None)) == "doc t doc 0: hash: stored a, recomputed nothing"
    assert str(Finding("doc", "hash", None, None, None, "b")) == "doc: hash: stored nothing, recomputed b"
    assert str(Finding("file", "size")) == "file: size"
    long = str(Finding("doc", "w" * 301, "t" * 121, 1, "s" * 121, "r" * 120))
    assert long == f"doc {'t' * 119}… doc 1: {'w' * 299}…: stored {'s' * 119}…, recomputed {'r' * 120}"
    found = report(EQUAL)
    found.notes.append("n" * 601)
    assert next(found.lines()) == f"note: {'n' * 599}…"
