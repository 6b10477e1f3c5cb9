"""Records: what is declared once is what documents, views, counts, collections and the page of docs are."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import testbench_dagster
from testbench_dagster.core import records
from testbench_dagster.core.errors import StoreError, UndeclaredField
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.declaring import (
    FACT,
    Part,
    Record,
    content,
    count_of,
    counted,
    key,
    nested,
    queryable,
    record,
    shape_of,
    stored_changes,
    view,
)
from testbench_dagster.core.records.every import RECORDS, page, shard_commands
from testbench_dagster.stores.documents import collections, typed
from testbench_dagster.stores.documents.sqlite import SqliteDocuments

ROOT = Path(testbench_dagster.__file__).parents[1]
NOW = datetime(2031, 1, 1, tzinfo=UTC)


@nested
class Wheel(Part):
    """A wheel."""

    size: int = content("inches")
    worn: str | None = content("how it is worn", default=None, sparse=True)


@record("carts", one_per="cart", kind=FACT, indexes=(("owner", "bought_at"),), unique=(("plate",),))
class CartRecord(Record):
    """A cart."""

    id: str = key("its number")
    owner: str = queryable("whose it is")
    plate: str | None = queryable("its plate")
    bought_at: datetime = queryable("when it was bought")
    doors: int = queryable("how many doors", default=2)
    wheels: tuple[Wheel, ...] = content("its wheels")
    spare: Wheel | None = content("another wheel", default=None)
    by_place: Mapping[str, Wheel] = content("wheels by their places")
    load: Mapping[str, Any] = content("what is on it", exported=False)


@view(CartRecord)
class CartOwner(NamedTuple):
    """Whose a cart is."""

    id: str
    owner: str
    doors: int


@view(CartRecord)
class CartWheels(NamedTuple):
    """The wheels of a cart."""

    owner: str
    wheels: tuple[Wheel, ...]


@counted(CartRecord)
class CartsOfOwner(NamedTuple):
    """Carts per owner."""

    owner: str
    n: int
    max_bought_at: datetime
    sum_doors: int


wheels = st.builds(Wheel, size=st.integers(-9, 9), worn=st.none() | st.text(max_size=3))
carts = st.builds(
    CartRecord,
    id=st.text("abc", min_size=1, max_size=3),
    owner=st.text("xyz", max_size=2),
    plate=st.none(),
    bought_at=st.just(NOW),
    doors=st.integers(0, 5),
    wheels=st.lists(wheels, max_size=3).map(tuple),
    spare=st.none() | wheels,
    by_place=st.dictionaries(st.text("lr", min_size=1, max_size=2), wheels, max_size=2),
    load=st.dictionaries(st.text("ab", min_size=1, max_size=1), st.integers(0, 3)),
    extra=st.none() | st.just({"horn": [1, {"loud": True}]}),
)


def cart(**changes: Any) -> CartRecord:
    plain: dict[str, Any] = {
        "id": "c1", "owner": "x", "plate": None, "bought_at": NOW, "wheels": (Wheel(size=3),),
        "by_place": {}, "load": {},
    }  # fmt: skip
    return CartRecord(**{**plain, **changes})


@given(carts)
def test_documents_and_records_are_the_same_facts(one: CartRecord) -> None:
    document = one.to_document()
    assert CartRecord.from_document(document) == one
    assert CartRecord.from_document(document).to_document() == document
    assert ("horn" in document) is (one.extra is not None)


def test_a_document_has_the_declared_fields_in_their_order() -> None:
    assert cart(wheels=(Wheel(size=3), Wheel(size=4, worn="much"))).to_document() == {
        "_id": "c1",
        "owner": "x",
        "plate": None,
        "bought_at": NOW,
        "doors": 2,
        "wheels": [{"size": 3}, {"size": 4, "worn": "much"}],
        "spare": None,
        "by_place": {},
        "load": {},
    }
    assert list(cart().to_document())[:3] == ["_id", "owner", "plate"]


def test_what_older_documents_lack_has_a_default_or_is_null_and_the_rest_is_needed() -> None:
    document = cart(doors=4, spare=Wheel(size=1)).to_document()
    for name in ("doors", "spare", "plate"):
        del document[name]
    assert CartRecord.from_document({**document, "more": 1}) == cart(extra={"more": 1})
    for name in ("owner", "wheels"):
        with pytest.raises(StoreError, match=rf"carts\[c1\] lacks {name}, .*restore or delete it"):
            CartRecord.from_document({k: v for k, v in document.items() if k != name})
    with pytest.raises(StoreError, match="Wheel lacks size"):
        CartRecord.from_document({**document, "wheels": [{}]})


def test_rows_without_a_value_read_as_documents_without_the_field() -> None:
    shape = shape_of(CartOwner)
    assert shape.names == ("_id", "owner", "doors")
    assert shape.from_row(("c1", "x", None)) == CartOwner("c1", "x", 2)
    assert shape.from_row(("c1", "x", 0)) == CartOwner("c1", "x", 0)


def test_the_collection_follows_from_the_class() -> None:
    collection = CartRecord.collection
    assert (collection.name, collection.indexes) == ("carts", (("owner", "bought_at"),))
    assert dict(collection.fields) == {"owner": str, "plate": str, "bought_at": datetime, "doors": int}
    with pytest.raises(UndeclaredField, match=r"carts\.load is not a declared field; make it `queryable`"):
        collection.check_declared(["load"])


def test_declarations_that_cannot_be_are_refused() -> None:
    with pytest.raises(TypeError, match="declare it with key, queryable or content"):

        @record("bare", one_per="x", kind=FACT)
        class Bare(Record):
            id: str = key("id")
            n: int = 3

    with pytest.raises(TypeError, match="only scalars are queryable"):

        @record("deep", one_per="x", kind=FACT)
        class Deep(Record):
            id: str = key("id")
            n: list[str] = queryable("names")

    with pytest.raises(TypeError, match="its first field, and no other"):

        @record("late", one_per="x", kind=FACT)
        class Late(Record):
            n: str = queryable("name")
            id: str = key("id")

    with pytest.raises(UndeclaredField, match="spare"):

        @record("wrong", one_per="x", kind=FACT, indexes=(("spare",),))
        class Wrong(Record):
            id: str = key("id")
            spare: str = content("not queryable")


def test_views_and_counts_are_checked_against_their_record() -> None:
    with pytest.raises(TypeError, match=r"Other\.wings is no field of CartRecord"):

        @view(CartRecord)
        class Other(NamedTuple):
            wings: int

    with pytest.raises(TypeError, match=r"Mistyped\.plate is <class 'str'>, in CartRecord"):

        @view(CartRecord)
        class Mistyped(NamedTuple):
            plate: str

    with pytest.raises(TypeError, match=r"Loads\.sum_load is nothing that can be counted"):

        @counted(CartRecord)
        class Loads(NamedTuple):
            sum_load: int

    with pytest.raises(TypeError, match="neither a record nor a view"):
        shape_of(int)
    with pytest.raises(TypeError, match="no count of a collection"):
        count_of(CartOwner)
    with pytest.raises(TypeError, match="CartRecord has no field 'wings'"):
        stored_changes(CartRecord, {"wings": 2})


def test_records_go_through_a_store_and_back(tmp_path: Path) -> None:
    store = SqliteDocuments(tmp_path / "d.sqlite3")
    one, two = cart(), cart(id="c2", owner="y", doors=5, extra={"horn": 1})
    assert typed.put_new(store, CartRecord, [one, two]) == 2
    assert typed.get(store, CartRecord, "c2") == two
    assert typed.get(store, CartRecord, "none") is None
    assert list(typed.find(store, CartRecord, sort=[("_id", 1)])) == [one, two]
    assert list(typed.find(store, CartOwner, {"doors": {"gt": 2}})) == [CartOwner("c2", "y", 5)]
    assert list(typed.find(store, CartWheels, {"owner": "x"}, limit=1)) == [CartWheels("x", one.wheels)]
    assert typed.by_id(store, CartOwner, ["c1", "c9"]) == {"c1": CartOwner("c1", "x", 2)}
    assert typed.group(store, CartsOfOwner) == [CartsOfOwner("x", 1, NOW, 2), CartsOfOwner("y", 1, NOW, 5)]
    changed = typed.claim(store, CartRecord, {"_id": "c2"}, wheels=(Wheel(size=8),), plate="B 1")
    assert changed is not None and (changed.wheels, changed.plate) == ((Wheel(size=8),), "B 1")
    assert changed.extra == {"horn": 1}, "what another program wrote stays"
    assert typed.upsert(store, CartRecord, [changed]) == 1 == typed.count(store, CartRecord, {"plate": "B 1"})
    assert typed.claim(store, CartRecord, {"_id": "c3"}, plate="C 1") is None
    assert typed.purge(store, CartRecord, {"owner": "x"}) == 1
    assert [row["_id"] for row in typed.declared(store, CartRecord)] == ["c2"]
    with pytest.raises(UndeclaredField, match="load"):
        list(typed.find(store, CartOwner, {"load": 1}))
    store.close()


def test_a_field_may_be_read_by_a_function_of_its_own(tmp_path: Path) -> None:
    """It is given what is stored, in records and views, and nothing where null is; what is stored stays."""

    @record("crates", one_per="crate", kind=FACT)
    class CrateRecord(Record):
        id: str = key("its number")
        load: list[str] = content("what is in it", decode=lambda stored: [*map(str.upper, stored)])
        left: list[str] | None = content("what is left of it", default=None, decode=sorted)

    @view(CrateRecord)
    class CrateLoad(NamedTuple):
        load: list[str]
        left: list[str] | None

    store = SqliteDocuments(tmp_path / "d.sqlite3")
    typed.put_new(store, CrateRecord, [CrateRecord(id="c", load=["b", "a"])])
    store.put_new(CrateRecord.collection, [{"_id": "d", "load": ["c"], "left": ["z", "y"]}])
    assert list(typed.find(store, CrateLoad)) == [CrateLoad(["B", "A"], None), CrateLoad(["C"], ["y", "z"])]
    assert typed.get(store, CrateRecord, "d") == CrateRecord(id="d", load=["C"], left=["y", "z"])
    assert [one["load"] for one in typed.whole(store, CrateRecord)] == [["b", "a"], ["c"]]
    store.close()


def test_views_of_queryable_fields_read_no_bodies(tmp_path: Path) -> None:
    store = SqliteDocuments(tmp_path / "d.sqlite3")
    typed.put_new(store, CartRecord, [cart()])
    store.find = None  # type: ignore[assignment,method-assign]
    assert list(typed.find(store, CartOwner)) == [CartOwner("c1", "x", 2)]
    store.close()


def test_every_record_of_the_package_is_listed_and_stored() -> None:
    declared = {
        found
        for module in pkgutil.iter_modules(records.__path__, f"{records.__name__}.")
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        if issubclass(found, Record) and found is not Record
    }
    assert declared == set(RECORDS)
    known = {collection.name: collection for collection in collections.ALL}
    assert len(known) == len(collections.ALL)
    assert all(known[of.collection.name] is of.collection for of in RECORDS)


def test_the_page_of_collections_is_that_of_the_classes() -> None:
    told = (ROOT / "docs" / "collections.md").read_text(encoding="utf-8")
    assert told == page() + "\n", "python -m testbench_dagster.core.records.every > docs/collections.md"


def test_every_field_of_an_attempt_says_what_it_means() -> None:
    assert all(field.meaning for of in RECORDS for field in of.fields)
    assert {field.name for field in AttemptRecord.fields if field.queryable} == {
        "_id",
        *AttemptRecord.collection.fields,
    }


def test_the_commands_for_shards_are_those_of_the_classes() -> None:
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = told.partition("### Sharded MongoDB")[2].partition("\n## ")[0]
    block = section.partition("```text\n")[2].partition("```")[0]
    assert block.splitlines() == list(shard_commands("testbench"))
    assert {of.collection.name for of in RECORDS if of.shard_key} == {"attempts", "scores", "service_probes"}


def test_a_unique_key_without_the_shard_key_is_refused() -> None:
    with pytest.raises(TypeError, match="must contain its shard key"):

        @record("carts", one_per="cart", kind=FACT, unique=(("owner",),), shard_key=("owner", "_id"))
        class Cart(Record):
            """A cart."""

            id: str = key("its id")
            owner: str = queryable("whose it is")
