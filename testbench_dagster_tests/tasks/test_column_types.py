"""Columns of every type: prompts and scores are lm-eval's, and plain docs are kept as they always were."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.lm_eval_adapter import build_prompts, register
from testbench_dagster.tasks.lm_eval_adapter.doc_json import dump_doc, load_doc, tagged, untagged
from testbench_dagster.tasks.lm_eval_adapter.values import json_value, raw_values
from testbench_dagster_tests.tasks.parity import Case, assert_parity
from testbench_dagster_tests.tasks.quiz import ROWS, YAML, quiz

# --- as text and back ----------------------------------------------------------------------------------

VALUES = [
    dt.datetime(2024, 2, 29, 1, 2, 3, 456789),
    dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1),
    pd.Timestamp("2024-02-29 01:02:03.000000001"),
    pd.Timestamp("2024-10-27 00:30:00.000000001", tz="UTC").tz_convert(ZoneInfo("Europe/Paris")),
    pd.Timestamp("2024-02-29 01:02:03.000000001+05:30"),
    pd.Timedelta(1, "ns"),
    dt.date(1, 1, 1),
    dt.time(23, 59, 59, 999999),
    dt.timedelta(days=-1, seconds=3, microseconds=4),
    b"\x00\xff",
    Decimal("-1.50"),
    Decimal("NaN"),
    UUID(int=7),
    2**64 - 1,
    -(2**70),
    math.inf,
    np.int8(-3),
    np.float32(0.1),
]


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, and of equal type; a fold is part of it."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    doc = {"a": value, "deep": [{"b": [value, None]}]}
    text = dump_doc(doc)
    assert text.isascii()
    back = load_doc(text)
    assert same(back["a"], value) and same(back["deep"][0]["b"][0], value)
    assert dump_doc(back) == text, "what is kept of what was kept is the same"
    assert same(untagged(tagged(value, for_bson=True)), back["a"])


def test_arrays_come_back_with_type_and_shape() -> None:
    array = np.arange(6, dtype=">i2").reshape(2, 3)
    back = load_doc(dump_doc({"a": array}))["a"]
    assert back.dtype == array.dtype and back.shape == (2, 3) and (back == array).all()


def test_images_keep_their_pixels() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "F", "CMYK"):
        picture = PIL.Image.new(mode, (3, 2))
        back = load_doc(dump_doc({"a": picture}))["a"]
        assert (back.mode, back.size, back.tobytes()) == (mode, (3, 2), picture.tobytes())


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text() | st.sampled_from(["testbench:date", "testbench:object", "testbench:"]), inner
        )
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_any_json_comes_back(value: Any) -> None:
    """Also what looks like a tag; a doc without one is the text that it always was."""
    text = dump_doc(value)
    assert json.dumps(load_doc(text)) == json.dumps(value)
    if "testbench:" not in json.dumps(value):
        assert text == json.dumps(value)


@pytest.mark.parametrize(
    "value", [{"testbench:date": "2024-01-01"}, {"testbench:object": {"testbench:date": 1}}]
)
def test_a_doc_that_looks_like_a_tag_stays_what_it_is(value: Any) -> None:
    assert load_doc(dump_doc({"a": value, "d": dt.date(2024, 1, 1)}))["a"] == value
    assert load_doc(dump_doc(value)) == value


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(ValueError, match=r"a builtins\.set has no form in JSON"):
        dump_doc({"a": {1, 2}})
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        dump_doc(deep)


def test_values_of_metrics_fit_a_document() -> None:
    values = [(Decimal("1.5"), 2**64), np.float64(0.5), {"a": dt.date(2024, 1, 1)}]
    kept = [json_value(value) for value in values]
    assert json.loads(json.dumps(kept)) == kept
    assert raw_values(kept) == [[Decimal("1.5"), 2**64], 0.5, {"a": dt.date(2024, 1, 1)}]


# --- files ---------------------------------------------------------------------------------------------

N = 6
DAY = dt.date(2024, 2, 28)


def column(kind: pa.DataType, make: Any) -> pa.Array:
    return pa.array([None if n == 4 else make(n) for n in range(N)], kind)


def jpeg(n: int) -> bytes:
    written = io.BytesIO()
    PIL.Image.new("RGB", (n + 1, 2), (n, 2 * n, 200)).save(written, "JPEG")
    return written.getvalue()


#: What only a table of arrow holds: the columns of a parquet file, and what lm-eval's side can load of it.
TABLE = pa.table(
    {
        "question": [f"what is {n}?" for n in range(N)],
        "answer": [str(n) for n in range(N)],
        "seconds": column(pa.timestamp("s"), lambda n: dt.datetime(2024, 2, 28 + n % 2, n)),
        "zoned": column(pa.timestamp("us", "Europe/Paris"), lambda n: dt.datetime(2024, 10, 27, n, 30, 0, n)),
        "offset": column(pa.timestamp("ms", "+05:30"), lambda n: dt.datetime(2024, 2, 28, n)),
        "nano": column(pa.timestamp("ns"), lambda n: 1_709_100_000_000_000_001 + n),
        "day": column(pa.date32(), lambda n: DAY + dt.timedelta(days=n)),
        "at": column(pa.time64("us"), lambda n: dt.time(n, 0, 0, n)),
        "long": column(pa.duration("us"), lambda n: dt.timedelta(days=n, microseconds=1)),
        "longer": column(pa.duration("ns"), lambda n: 10**9 * n + 1),
        "raw": column(pa.binary(), lambda n: bytes([n, 255])),
        "price": column(pa.decimal128(8, 2), lambda n: Decimal(n) / 4),
        "big": column(pa.uint64(), lambda n: 2**64 - 1 - n),
        "ratio": column(pa.float64(), lambda n: [math.nan, math.inf, -math.inf, 0.1, 0, 1e300][n]),
        "nested": column(
            pa.list_(pa.struct([("day", pa.date32()), ("price", pa.decimal128(6, 1))])),
            lambda n: [{"day": DAY, "price": Decimal(n)}, {"day": None, "price": None}],
        ),
        "word": pa.array(["a", "b", "a", "b", None, "a"]).dictionary_encode(),
    }
)
TEMPLATE = (
    "{{question}} {{seconds}} {{zoned}} {{offset}} {{nano}} {{day}} {{at}} {{long}} {{longer}} {{raw}} "
    "{{price}} {{big}} {{ratio}} {{nested}} {{word}} {{'none' if day is none else day.strftime('%d %B')}}"
)
OWN = """
task: own_types
dataset_path: {loader}
dataset_kwargs: {{data_files: {{test: {path}, train: {path}}}}}
test_split: test
fewshot_split: train
num_fewshot: 1
output_type: generate_until
doc_to_text: "{template}"
doc_to_target: "{target}"
process_results: !function helper.results
metric_list: [{{metric: hit, aggregation: mean, higher_is_better: true}}]
"""
HELPER = """
def results(doc, results):
    day, price, long = doc.get("day"), doc.get("price"), doc.get("long")
    days = 0 if day is None else day.toordinal() % 7
    worth = 0.0 if price is None else float(price * 3)
    seconds = 0.0 if long is None else long.total_seconds()
    return {"hit": days + worth + seconds + len(results[0]) + len(doc.get("raw") or b"")}
"""


def case(
    folder: Path, file: Path, loader: str, template: str = TEMPLATE, target: str = "{{answer}} {{day}}"
) -> Case:
    text = OWN.format(loader=loader, path=file, template=template, target=target)
    return Case(
        "own_types",
        None,
        lambda doc: [doc["question"], "no", ""],
        files={"test": str(file), "train": str(file)},
        own_yaml={"own_types.yaml": text, "helper.py": HELPER},
        folders=("starter",),
    )


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("way", ["files of ours", "lm-eval's own loading"])
def test_parquet_prompts_and_scores_are_those_of_lm_eval(way: str, tmp_path: Path) -> None:
    """Loaded by lm-eval itself is how data sets of the hub come, too."""
    file = tmp_path / "rows.parquet"
    pq.write_table(TABLE, file)
    made = case(tmp_path, file, "parquet")
    sides = assert_parity(made if way == "files of ours" else replace(made, files=None), tmp_path)
    assert "2024-02-29" in json.dumps(sides["own_types"].requests)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_ragged_json_is_filled_with_nulls_as_by_lm_eval(ending: str, tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": n} for n in range(4)]
    rows[1] = {"answer": 1, "question": "q1", "hint": {"a": 1}}
    rows[2] = {"question": "q2", "late": True}
    rows[3]["mixed"] = "text"
    file = tmp_path / f"rows.{ending}"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if ending == "json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    template = "{{question}} {{answer}} {{hint}} {{late}} {{mixed}}"
    assert_parity(case(tmp_path, file, "json", template, "{{answer}}"), tmp_path)


@pytest.mark.usefixtures("hub_cache")
def test_csv_is_read_as_by_lm_eval(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = ["question,answer,when,big,ratio", "q0,1,2024-02-29,18446744073709551615,NaN", "q1,2,,7,0.5"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    template = "{{question}} {{answer}} {{when}} {{big}} {{ratio}}"
    assert_parity(case(tmp_path, file, "csv", template, "{{answer}}"), tmp_path, constant=["hit,none"])


def test_a_column_of_mixed_types_is_as_datasets_has_it(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": 1},
        {"question": "b", "answer": "one"},
        {"question": "c", "answer": [1]},
    ]
    spec = quiz(tmp_path, test=rows, num_fewshot=0)
    found = register(spec)
    assert [json.loads(text)["answer"] for text in found.data.docs.values()] == [1, "one", [1]]


def test_integers_of_json_keep_every_digit(tmp_path: Path) -> None:
    """lm-eval rounds such a column to doubles."""
    rows = [{"question": "a", "answer": 2**64 - 1, "n": [2**63]}, {"question": "b", "answer": 2, "n": [1]}]
    spec = quiz(tmp_path, YAML.replace("{{question}}", "{{answer}} {{n}}"), test=rows, num_fewshot=0)
    found = register(spec)
    prompts = build_prompts(spec, found.data, [0, 1], "completions")
    assert [p.requests[0]["prompt"] for p in prompts] == [f"Q: {2**64 - 1} [{2**63}]", "Q: 2 [1]"]
    assert prompts[0].target == str(2**64 - 1)


def test_a_map_is_its_keys_and_values(tmp_path: Path) -> None:
    """`datasets`, and so lm-eval, refuses the type."""
    maps = pa.array([[("a", DAY)], [], None], pa.map_(pa.string(), pa.date32()))
    table = pa.table({"question": ["x", "y", "z"], "answer": ["1", "2", "3"], "m": maps})
    table = table.append_column(
        "deep", pa.array([{"m": [("k", 1)]}] * 3, pa.struct([("m", pa.map_("string", "int8"))]))
    )
    file = tmp_path / "rows.parquet"
    pq.write_table(table, file)
    spec = quiz(tmp_path, YAML.replace("{{question}}", "{{m}} {{deep.m[0].key}}"), num_fewshot=0)
    spec = type(spec)(**{**vars(spec), "data": {"test": str(file)}})
    prompts = build_prompts(spec, register(spec).data, [0, 1, 2], "completions")
    first = "[{'key': 'a', 'value': datetime.date(2024, 2, 28)}]"
    assert [p.requests[0]["prompt"] for p in prompts] == [f"Q: {first} k", "Q: [] k", "Q: None k"]


def test_images_are_kept_as_their_files(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "picture": datasets.Image(),
            "album": datasets.List(datasets.Image(mode="L")),
        }
    )
    on_disk = tmp_path / "three.jpg"
    on_disk.write_bytes(jpeg(3))
    pictures = [{"bytes": jpeg(1), "path": "one.jpg"}, None, {"bytes": None, "path": str(on_disk)}]
    rows = {
        "question": ["a", "b", "c"],
        "answer": ["1", "2", "3"],
        "picture": pictures,
        "album": [[{"bytes": jpeg(2), "path": None}], [], None],
    }
    file = tmp_path / "rows.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    spec = quiz(tmp_path, num_fewshot=0)
    spec = type(spec)(**{**vars(spec), "data": {"test": str(file)}})
    docs = [load_doc(text) for text in register(spec).data.docs.values()]
    theirs = list(datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "hf")))
    for doc, other in zip(docs, theirs, strict=True):
        assert doc.keys() == other.keys()
        for mine, image in zip(
            [doc["picture"], *(doc["album"] or ())], [other["picture"], *(other["album"] or ())], strict=True
        ):
            if image is None:
                assert mine is None
            else:
                assert (mine.format, mine.mode, mine.size) == (image.format, image.mode, image.size)
                assert mine.tobytes() == image.tobytes()
    kept = json.loads(register(spec).data.docs[0])["picture"]["testbench:image"]
    import base64

    assert base64.b64decode(kept[0]) == jpeg(1) and kept[1] == "one.jpg"


def test_where_picks_rows_of_a_table(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(TABLE, file)
    spec = quiz(tmp_path, num_fewshot=0, where={"day": "2024-02-29", "word": "b"})
    spec = type(spec)(**{**vars(spec), "data": {"test": str(file)}})
    assert [load_doc(text)["question"] for text in register(spec).data.docs.values()] == ["what is 1?"]
    none = type(spec)(**{**vars(spec), "where": {"day": "2000-01-01"}})
    with pytest.raises(TaskError, match="holds no rows with day = '2000-01-01'"):
        register(none)


def test_plain_docs_are_stored_as_they_always_were(tmp_path: Path) -> None:
    """Hashes of docs, data and requests as they were before docs could hold more; taken at 01ad56f."""
    found = register(quiz(tmp_path))
    assert list(found.data.docs.values()) == [json.dumps(row) for row in ROWS]
    assert found.fingerprint == FINGERPRINT
    parquet = tmp_path / "rows.parquet"
    pd.DataFrame(ROWS).to_parquet(parquet)
    spec = quiz(tmp_path, num_fewshot=0)
    spec = type(spec)(**{**vars(spec), "data": {"test": str(parquet)}})
    assert register(spec).fingerprint == register(quiz(tmp_path, num_fewshot=0)).fingerprint


FINGERPRINT = "f983a3324835cb3702d3061e055a5bbcda315eeb9d3a3257351eaa2542d3cb18"
