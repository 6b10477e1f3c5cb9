"""What is stored: one class per collection of documents, which declares its fields, indexes and codec once.

The stores' columns and indexes, the parquet files of ``testbench export``, what an evidence bundle must hold
and ``docs/collections.md`` all follow from these classes. Nothing here opens a file, a socket or a store.

Belongs here: what documents are, as they are stored. Does not: what is computed of them, and when they are
written.

How a collection is declared, in a module of its own or of its family::

    @record("heights", one_per="service", kind=ROSTER, indexes=(("at",),))
    class HeightRecord(Record):
        \"\"\"The newest block height known of a service.\"\"\"

        id: str = key("the service")
        height: int = queryable("the newest block height")
        at: datetime = queryable("when it was heard of")
        note: str | None = content("anything else", default=None)

* ``queryable`` fields may be named by filters, sorts, groups and narrow reads; they are scalars
  (``str``, ``int``, ``float``, ``bool``, ``datetime``) and a column of the embedded store. ``content`` fields
  are read with the whole document. A new queryable field needs no migration: the stores fill it from the
  bodies.
* The type is what holds for every document: ``| None`` where it may be null or missing. Another field that
  older documents lack has a default, which stands in for it; without one it is needed, in evidence bundles
  too.
* The text says what the field means, with its unit; it is what the documentation shows.
* Values inside a document are classes of their own (``@nested class …(Part)``), alone, in a ``tuple[…, ...]``
  or as values of a ``Mapping[str, …]``.
* What a newer or another program put into a document besides is kept in ``extra`` and written back.

Reading a part of a collection goes through a *view*, a named tuple beside the record, whose fields are
checked against it when it is imported; a view of queryable fields alone never reads the bodies. What a store
counts is a *count*: fields to count by, then ``n`` and any of ``min_…``, ``max_…``, ``sum_…``::

    @view(HeightRecord)
    class Height(NamedTuple):
        id: str
        height: int

    @counted(AttemptRecord)
    class FaultCount(NamedTuple):
        supplier: str
        fault: str
        n: int

Stages read and write these through :mod:`testbench_dagster.stores.documents.typed`, never a document by the
names of its fields.
"""
