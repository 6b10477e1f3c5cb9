"""Both formats say the same, in both directions, and any text gives a taxonomy or a clear error."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.taxonomies import tax_format, yaml_format
from testbench_dagster.taxonomies.load import builtin_names, load_taxonomy
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError
from testbench_dagster_tests.taxonomies.test_summary import weighted

names = st.text("abcXYZ019_-.é#'*[]", min_size=1, max_size=12)
TEXT = """\
small {
    root_c -> reading;
    root_c -> reasoning;
    reasoning -> reading;
    geometry -> reading;
}
small_labeling {
    reading -> task_a;
    reasoning -> undefined_task1;
    geometry -> undefined_task2;
}
"""


def same(one, other):
    """Equal but for the order of edges that start at different nodes, which nothing depends on."""
    return (
        (one.name, one.root, dict(one.nodes), set(one.detached))
        == (other.name, other.root, dict(other.nodes), set(other.detached))
        and all(one.children(node) == other.children(node) for node in one.nodes)
        and {n: dict(w) for n, w in one.weights.items()} == {n: dict(w) for n, w in other.weights.items()}
    )


@st.composite
def of_both(draw):
    """Taxonomies a .tax file can hold: every node under the root with a task of its own or a placeholder."""
    nodes = draw(st.lists(names.filter(lambda n: n != "root_c"), min_size=1, max_size=7, unique=True))
    edges = {("root_c", nodes[0])}
    for place, node in enumerate(nodes[1:], start=1):
        for parent in draw(st.sets(st.sampled_from(["root_c", *nodes[:place]]), max_size=2)):
            edges.add((parent, node))
    linked = {node for edge in edges for node in edge}
    labels = {}
    for place, node in enumerate(n for n in nodes if n in linked):
        labels[node] = (draw(st.sampled_from([f"task_{place}", f"undefined_task{place}"])), f"more_{place}")
    reached = {"root_c"}
    for node in nodes:  # every edge leads to a later node
        if any((parent, node) in edges for parent in reached):
            reached.add(node)
    away = tuple(node for node in labels if node not in reached)
    return Taxonomy(draw(names), {"root_c": (), **labels}, tuple(sorted(edges)), "root_c", detached=away)


@settings(max_examples=60, deadline=None)
@given(of_both())
def test_what_is_written_is_read_again_the_same_in_both_formats(taxonomy):
    from_tax = tax_format.parse(tax_format.write(taxonomy))
    from_yaml = yaml_format.parse(yaml_format.write(taxonomy))
    assert same(taxonomy, from_yaml)
    assert same(taxonomy, from_tax)
    assert same(from_tax, from_yaml)
    assert same(tax_format.parse(tax_format.write(from_yaml)), yaml_format.parse(yaml_format.write(from_tax)))


@settings(max_examples=50, deadline=None)
@given(weighted())
def test_yaml_keeps_weights(taxonomy):
    assert same(yaml_format.parse(yaml_format.write(taxonomy)), taxonomy)


def test_nodes_out_of_reach_and_placeholders_are_read():
    taxonomy = tax_format.parse(TEXT)
    assert taxonomy.detached == ("geometry",)
    assert taxonomy.nodes["geometry"] == ("undefined_task2",)
    assert taxonomy.children("geometry") == ("reading",)
    assert [part.name for part in taxonomy.parts("root_c")] == ["reading", "reasoning"]
    assert [part.name for part in taxonomy.parts("reasoning")] == ["undefined_task1"], (
        "edges are no parts here"
    )


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT.replace("small {", 'digraph "small" {').replace("small_labeling {", "digraph small_labeling{"),
        TEXT.replace("root_c -> reading;", 'root_c->"reading"'),
        TEXT.replace("    root_c -> reading;", "   \t// reasoning -> lost;\n    root_c -> reading;\n\n"),
        TEXT.replace("    root_c -> reading;", "    root_c -> reading;\n    root_c -> reading;"),
    ],
    ids=["windows", "bom", "digraph", "quotes", "comment", "duplicate"],
)
def test_quirks_of_real_files_change_nothing(tmp_path, text):
    (tmp_path / "any.tax").write_bytes(text.encode())
    assert same(load_taxonomy("any.tax", tmp_path), tax_format.parse(TEXT))


@pytest.mark.parametrize(
    ("taxonomy", "said"),
    [
        (Taxonomy("t", {"top": (), "a": ("x",)}, (("top", "a"),), "top"), "root must be called"),
        (Taxonomy("t", {"root_c": ("x",)}, (), "root_c"), "cannot give the root tasks"),
        (
            Taxonomy("t", {"root_c": (), "a": (), "b": ("x",)}, (("root_c", "a"), ("a", "b")), "root_c"),
            "wants tasks on every node, 'a' has none",
        ),
        (
            Taxonomy("t", {"root_c": (), "a": ("x",)}, (("root_c", "a"),), "root_c", {"a": {"x": 2.0}}),
            "cannot hold weights",
        ),
        (Taxonomy("t", {"root_c": (), "a b": ("x",)}, (("root_c", "a b"),), "root_c"), "'a b' cannot stand"),
        (Taxonomy("t", {"root_c": (), "a": ("x:y",)}, (("root_c", "a"),), "root_c"), "'x:y' cannot stand"),
    ],
)
def test_what_a_tax_file_cannot_say_is_refused(taxonomy, said):
    with pytest.raises(TaxonomyError, match=said):
        tax_format.write(taxonomy)
    assert same(yaml_format.parse(yaml_format.write(taxonomy)), taxonomy)


def outcome(parse, text):
    """What a reader makes of a text: the taxonomy, or one of the errors it may give."""
    try:
        return parse(text)
    except (TaxonomyError, tax_format.LineError) as error:
        return error


pieces = st.sampled_from(
    [
        "a",
        "b",
        "root_c",
        "->",
        ";",
        "{",
        "}",
        "\n",
        "//",
        " ",
        '"',
        ":",
        "t {",
        "t_labeling {",
        "digraph",
        "\r",
        "\t",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(pieces, max_size=60).map("".join)))
def test_any_text_is_a_tax_file_or_an_error_with_a_line(text):
    found = outcome(tax_format.parse, text)
    if isinstance(found, Taxonomy):
        assert same(tax_format.parse(tax_format.write(found)), found)
    else:
        assert isinstance(found, tax_format.LineError)
        assert 1 <= found.line <= max(1, len(text.splitlines()))
        assert str(found)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mangled_tax_file_is_read_or_refused(data):
    place = data.draw(st.integers(0, len(TEXT)))
    cut = data.draw(st.integers(0, 12))
    text = TEXT[:place] + data.draw(st.one_of(pieces, st.text(max_size=4))) + TEXT[place + cut :]
    found = outcome(tax_format.parse, text)
    assert isinstance(found, Taxonomy) or found.line >= 1


YAML = yaml_format.write(tax_format.parse(TEXT))
yaml_pieces = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "\n",
        "  ",
        "&a ",
        "*a",
        "!!int ",
        "<<: ",
        "1e999",
        "~",
        "? ",
        "'",
        "0x",
        "=",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_yaml_is_a_taxonomy_or_an_error(data):
    place = data.draw(st.integers(0, len(YAML)))
    cut = data.draw(st.integers(0, 12))
    text = YAML[:place] + data.draw(st.one_of(yaml_pieces, st.text(max_size=6))) + YAML[place + cut :]
    found = outcome(yaml_format.parse, text)
    if isinstance(found, Taxonomy):
        assert same(yaml_format.parse(yaml_format.write(found)), found)
    else:
        assert isinstance(found, TaxonomyError) and str(found)


@pytest.mark.parametrize(
    "text", ["[" * 1000, "&a [*a]", "? [a]\n: b", "!!python/object:os.system {}", "name: !!int x", "\x00"]
)
def test_hostile_yaml_is_refused(text):
    with pytest.raises(TaxonomyError):
        yaml_format.parse(text)


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_taxonomies_survive_writing(name):
    taxonomy = load_taxonomy(f"builtin:{name}", Path("/nowhere"))
    assert taxonomy.name == name
    assert same(yaml_format.parse(yaml_format.write(taxonomy)), taxonomy)
