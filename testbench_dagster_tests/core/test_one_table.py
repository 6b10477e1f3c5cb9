"""One table per fact: nobody but the fault table says what a fault means.

Read by syntax: what names a member of ``Fault``, and what puts several of them side by side.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from testbench_dagster_tests.core.reaching import parsed
from testbench_dagster_tests.test_architecture import modules

#: Modules that decide which fault an event is, and so may name faults. Whoever asks what a fault means reads
#: its row, see core/faults.py.
DECIDES_FAULTS = {
    "core.records.lanes": "a run that was stopped",
    "evidence.chain": "what an attempt was before its lease was lost; whose words an error is in",
    "relays.engine": "a transport that raises",
    "scoring.rows": "a score that lacks its value",
    "stages.dispute.rescore": "what an attempt was before its lease was lost",
    "stages.relay.writer": "a lease that was lost",
    "stages.service.context": "a prompt that is refused for its length",
    "stages.service.probe": "an option of a stream that is refused; a connection that had been closed",
    "stages.score.samples": "an answer that cannot be scored, or was scored",
    "transports.answers": "the body of an answer",
    "transports.outcome": "exceptions of an exchange; a page that is too large",
    "transports.path.stored": "what the stored answer of a gateway can have been",
    "transports.path.transport": "what a gateway says",
    "transports.pocket.faults": "what a relay miner says",
    "transports.pocket.quota": "a relay miner that grants no more",
    "transports.pocket.services": "what keeps a relay from being sent",
    "transports.pocket.stored": "what the stored answer of a relay miner can have been",
    "transports.pocket.transport": "a relay that was not sent",
    "transports.statuses": "HTTP status, and an error in a body",
    "transports.stored": "what stored evidence can have been",
}
#: Of these the ones that hold a table from events to faults.
HOLDS_A_FAULT_TABLE = {
    "transports.answers",
    "transports.pocket.faults",
    "transports.pocket.stored",
    "transports.statuses",
}


def named_faults(node: ast.AST) -> set[str]:
    """Members of ``Fault`` that code names anywhere within."""
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "Fault"
        and inner.attr.isupper()
    }


def fault_collections(tree: ast.AST) -> Iterator[int]:
    """Lines where a set, dict, list or tuple, or a pattern, holds several faults."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Set, ast.List, ast.Tuple)):
            held: list[ast.expr] = node.elts
        elif isinstance(node, ast.Dict):
            held = [part for part in (*node.keys, *node.values) if part is not None]
        elif isinstance(node, ast.MatchOr):
            if len(named_faults(node)) > 1:
                yield node.lineno
            continue
        else:
            continue
        if sum(bool(named_faults(part)) for part in held) > 1:
            yield node.lineno


def test_only_what_decides_on_a_fault_names_one() -> None:
    table = "testbench_dagster.core.faults"
    prefix = "testbench_dagster."
    trees = {name: parsed(path) for name, path in modules().items()}
    named = {
        name.removeprefix(prefix) for name, tree in trees.items() if name != table and named_faults(tree)
    }
    more = sorted(named - set(DECIDES_FAULTS))
    assert not more, (
        f"{', '.join(more)} name(s) a fault: make the difference a column of the table in core/faults.py "
        "and read it (fault.row.<column>), or, where this decides which fault an event is, add the module to "
        "DECIDES_FAULTS with what it decides on"
    )
    assert named == set(DECIDES_FAULTS), "strike out what no longer names a fault"
    for name, tree in trees.items():
        short = name.removeprefix(prefix)
        if name != table and short not in HOLDS_A_FAULT_TABLE:
            lines = sorted(set(fault_collections(tree)))
            assert not lines, f"{short}, lines {lines}: lists faults; make it a column of core/faults.py"


def test_the_search_for_fault_lists_finds_them() -> None:
    listed = """
if fault in (Fault.OK, Fault.EMPTY): pass
known = {Fault.OK: 1, Fault.EMPTY: 2}
pairs = ((429, Fault.RATE_LIMITED), (451, Fault.SUPPLIER_REFUSED))
some = frozenset({Fault.NODE, Fault.BUDGET})
match fault:
    case Fault.NODE | Fault.BUDGET: pass
"""
    assert len(set(fault_collections(ast.parse(listed)))) == 5
    single = (
        "fault = Fault.OK if fine else Fault.EMPTY\nanswer = (Fault.OK, text)\nif fault is Fault.NODE: pass"
    )
    assert not list(fault_collections(ast.parse(single)))
    assert named_faults(ast.parse(single)) == {"OK", "EMPTY", "NODE"}
