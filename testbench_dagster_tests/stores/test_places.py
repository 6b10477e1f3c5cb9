"""Places for files: folders, S3, and whatever fsspec knows; whole or not there, and told in a line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.places import place_problem
from testbench_dagster.stores.places import Place
from testbench_dagster_tests.conftest import forget_filesystems
from testbench_dagster_tests.servers import S3_KEYS


@pytest.fixture(params=["path", "file", "s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    where = {
        "path": str(tmp_path / "out"),
        "file": f"file://{tmp_path}/out",
        "memory": f"memory://{tmp_path}",
    }
    return Place(
        f"{request.getfixturevalue('s3_bucket')}/a/b" if request.param == "s3" else where[request.param]
    )


def put(place: Place, name: str, text: bytes, then: type[Exception] | None = None) -> None:
    with place.writing(name) as path:
        path.write_bytes(text)
        if then is not None:
            raise then


def test_files_come_back_and_are_replaced_whole(place: Place) -> None:
    place.look()
    assert place.read("x/y.json") is None
    for text in (b"first", b"second"):
        put(place, "x/y.json", text)
        assert place.read("x/y.json") == text
    with pytest.raises(RuntimeError):
        put(place, "x/y.json", b"half", RuntimeError)
    assert place.read("x/y.json") == b"second"
    place.look()
    place.remove("x/y.json")
    place.remove("x/y.json")
    assert place.read("x/y.json") is None


def test_nothing_else_is_left_behind(place: Place, tmp_path: Path) -> None:
    put(place, "x/y.json", b"text")
    with pytest.raises(RuntimeError):
        put(place, "x/z.json", b"half", RuntimeError)
    if place.local is not None:
        assert [p.name for p in place.local.rglob("*")] == ["x", "y.json"]
        return
    import fsspec

    files, root = fsspec.core.url_to_fs(place.shown)
    assert [name.rpartition("/")[2] for name in files.find(root)] == ["y.json"]


def test_files_are_stored_listed_with_their_time_and_removed(place: Place) -> None:
    assert place.folders("a") == [] and place.written("a/b") == {}
    began = datetime.now(UTC)
    for text in (b"first", b"second"):
        for name in ("a/b/one", "a/b/two", "a/c/three", "a/four"):
            place.store(name, text)
            assert place.read(name) == text
    assert place.folders("a") == ["b", "c"]
    written = place.written("a/b")
    assert sorted(written) == ["one", "two"], "and no partial file"
    assert all(abs(moment - began) < timedelta(minutes=10) for moment in written.values())
    place.remove_all(["a/b/one", "a/b/never"])
    assert place.folders("a") == ["b", "c"] and list(place.written("a/b")) == ["two"]
    place.remove_all([])
    place.remove_all(["a/b/two"])
    assert place.folders("a") == ["c"] and place.read("a/four") == b"second"
    place.remove_folder("a")
    place.remove_folder("never")
    assert place.folders("a") == ["c"], "only an empty one"


@pytest.mark.slow(minutes=0.1)
def test_a_large_file_is_one_object(s3_bucket: str) -> None:
    """More than what one request takes: in parts, which show when the last has arrived."""
    body = bytes(range(256)) * 4096 * 60  # 60 MiB
    place = Place(s3_bucket)
    put(place, "large", body)
    assert place.read("large") == body


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://bucket/prefix", None),
        ("file:///srv/results", None),
        ("abfs://container@account.dfs.core.windows.net/x", None),
        ("gs://bucket", None),
        ("results", "'results' is no URL of a place for files; write it like s3://bucket/prefix"),
        ("s3://", "is no URL of a place"),
        ("s3:/AKIA:hunter22@bucket", "is no URL of a place"),
        ("file://host/x", "names a host"),
        ("s3://AKIA:hunter22@bucket/x", "may not hold a password or key"),
        ("s3://AKIA:hun/ter22@bucket/x", "may not hold a password or key"),
        ("sftp://me:hunter22@host/x", "may not hold a password or key"),
        ("az://c/x?sig=hunter22", "nothing may follow"),
        ("simplecache::s3://bucket/hunter22", "a chain of places"),
        ("s3://hunter22::file://x", "a chain of places"),
    ],
)
def test_urls_are_judged_and_no_password_is_quoted(url: str, problem: str | None) -> None:
    told = place_problem(url)
    if problem is None:
        assert told is None
        Place(url)
        return
    assert told is not None
    assert re.search(problem, told) and "hunter22" not in told and "hun/ter22" not in told
    if "://" in url:
        with pytest.raises(ConfigError, match=problem):
            Place(url)


def refused(act: Callable[[], object]) -> str:
    """What is said of a place that cannot be written, or looked at."""
    with pytest.raises(StoreError) as told:
        act()
    assert "\n" not in str(told.value)
    return str(told.value)


def refused_to_write(place: Place) -> str:
    return refused(lambda: put(place, "y", b""))


def test_what_fails_is_told_in_a_line_without_keys(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Place("s3://no-such-bucket/x")
    assert refused(nowhere.look).startswith("cannot read s3://no-such-bucket/x: it is not there; check")
    assert refused_to_write(nowhere).startswith("cannot write s3://no-such-bucket/x/y: it is not there;")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    said = refused(Place("gs://bucket/x").look)
    assert said.startswith("gs://bucket/x needs a package that is not installed: ") and "gcsfs" in said
    said = refused_to_write(Place("nosuch://bucket/x"))
    assert said.startswith("nosuch://bucket/x: fsspec knows no protocol 'nosuch'; use one that it knows")
    (tmp_path / "file").write_text("")
    said = refused_to_write(Place(tmp_path / "file/x"))
    assert "/file/x/y: Not a directory; let this user write there" in said
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_filesystems()
    assert "/y: Could not connect to the endpoint URL" in refused_to_write(Place(s3_bucket))


def test_what_a_store_says_of_keys_is_not_passed_on(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def cat_file(self, path: str) -> bytes:
            raise PermissionError(f"{S3_KEYS['AWS_SECRET_ACCESS_KEY']} of\n{path} is no good")

    monkeypatch.setattr(Place, "_files", property(lambda self: Refusing()))
    with pytest.raises(StoreError, match=rf": \*\*\* of {s3_bucket[5:]}/x is no good; check"):
        Place(s3_bucket).read("x")
