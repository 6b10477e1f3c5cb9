"""Reading taxonomies: both formats, their quirks, and errors that say where and what to do."""

from pathlib import Path

import pytest

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.taxonomies.load import builtin_names, load_taxonomy
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError

TAX = """\
digraph skills_v1 {
    // abilities
    root_c -> reading;
    root_c -> maths:basic
    reading -> words;
    reading -> words;
    \t// root_c -> dropped;
}

skills_v1_labeling {
    words -> "task_a";
    reading -> task_b;
    maths:basic -> task_c;
    maths:basic -> task_a;
}
"""

YAML = """\
name: skills_v1
root: root_c
nodes:
  root_c: {children: [reading, maths---basic]}
  reading: {tasks: [task_b], children: [words]}
  maths---basic: {tasks: [task_c, task_a]}
  words: {tasks: [task_a]}
"""


def write(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return load_taxonomy(name, tmp_path)


def test_both_formats_say_the_same(tmp_path):
    tax, yml = write(tmp_path, "any.tax", TAX), write(tmp_path, "any.yml", YAML)
    assert (tax.name, tax.root, dict(tax.nodes)) == (yml.name, yml.root, dict(yml.nodes))
    assert set(tax.edges) == set(yml.edges) and len(tax.edges) == 3
    assert tax.name == "skills_v1", "the block names it, not the file"
    assert tax.tasks() == ("task_b", "task_c", "task_a")
    assert tax.children("root_c") == ("reading", "maths---basic")


def test_builtin_starter_covers_the_starter_tasks():
    taxonomy = load_taxonomy("builtin:starter", Path("/nowhere"))
    assert sorted(taxonomy.tasks()) == sorted(TASKS)
    assert taxonomy.top_down()[0] == taxonomy.root
    assert "starter" in builtin_names()


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("root_c -> reading;", "root_c -> reading; // note", 3, "put it on its own line"),
        ("    // abilities", "// root_c -> more;", 2, "indent or delete"),
        ("root_c -> reading;", "root_c -> reading -> words;", 3, "one arrow"),
        ("root_c -> reading;", "root_c reading;", 3, "one arrow"),
        ("root_c -> reading;", "root_c -> two words;", 3, "is no name"),
        ("root_c -> reading;", "root_c -> ;", 3, "is no name"),
        ("reading -> words;\n    reading -> words;", "reading -> words; words -> reading;", 5, "one arrow"),
        ("    reading -> words;\n    reading", "    words -> reading;\n    reading", 6, "cycle"),
        ("    // abilities", "    lost -> words;", 2, "'lost' has no label.*undefined_task1"),
        ("    // abilities", "    root_c -> bare;", 2, "'bare' has no label"),
        ("reading -> task_b;", "root_c -> task_b;", 12, "root is the mean of its children"),
        ("reading -> task_b;", "ghost -> task_b;", 3, "'reading' has no label"),
        ("reading -> task_b;", "reading -> task_a;", 11, "count twice"),
        ("reading -> task_b;", "reading -> task:b;", 12, "use the YAML format"),
        ("root_c -> ", "top -> ", 1, "no edge starts at the root"),
        ("skills_v1_labeling", "labels", 10, "rename it 'skills_v1_labeling'"),
        ("task_a;\n}", "task_a;\n}\nthird {\n}", 16, "exactly two"),
        ("task_a;\n}", "task_a;\n", 10, "not closed"),
        ("digraph skills_v1 {", "skills_v1", 1, "to open a block"),
    ],
)
def test_tax_errors_name_file_line_and_remedy(tmp_path, old, new, line, said):
    assert old in TAX
    with pytest.raises(TaxonomyError, match=said) as raised:
        write(tmp_path, "bad.tax", TAX.replace(old, new))
    assert str(raised.value).startswith(f"{tmp_path / 'bad.tax'}:{line}: ")
    assert isinstance(raised.value, ConfigError)


@pytest.mark.parametrize("text", ["", "one {\n a -> b;\n}\n"])
def test_tax_without_two_blocks(tmp_path, text):
    with pytest.raises(TaxonomyError, match="exactly two"):
        write(tmp_path, "bad.tax", text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("root: root_c", "root: nobody", "no node; add it"),
        ("name: skills_v1\n", "", "name must be a name"),
        ("name: skills_v1", "name: skills_v1\ncolour: red", "unknown key 'colour'"),
        ("tasks: [task_b],", "task: [task_b],", "nodes.reading has the unknown key 'task'"),
        ("[task_b]", "task_b", "nodes.reading.tasks must be a list"),
        ("[task_b]", "[1]", "nodes.reading.tasks must be a name"),
        ("[task_b]", "[task_b, task_b]", "lists the task 'task_b' twice"),
        ("[task_b]", "[task_a]", "'task_a' is in node 'words' and in 'reading'"),
        ("children: [words]", "children: [wrods]", "'wrods'; add or correct"),
        ("children: [words]", "children: [words, words]", "stands twice"),
        ("words: {tasks: [task_a]}", "words: {children: [reading]}", "reading.* form a cycle"),
        ("words: {tasks: [task_a]}", "words: {}", "neither tasks nor children"),
        ("words: {tasks: [task_a]}", "words: 3", "nodes.words must be a mapping"),
        ("  words:", "  reading:", "line 7: the key 'reading' stands twice"),
        ("reading: {", "reading: {{", "line "),
        ("[words]}", "[words], weights: 3}", "nodes.reading.weights must be a mapping"),
        ("[words]}", "[words], weights: {words: yes}}", "nodes.reading.weights.words must be a number"),
        ("[words]}", "[words], weights: {words: 0}}", "gives 'words' the weight 0.0; want a number from"),
        ("[words]}", "[words], weights: {words: .nan}}", "the weight nan; want a number"),
        ("[words]}", "[words], weights: {task_c: 1}}", "neither a task nor a child"),
        ("root: root_c", "root: root_c\ndetached: [words]", "called detached, but edges lead to it"),
        ("root: root_c", "root: root_c\ndetached: [ghost]", "'ghost' is no node"),
        ("children: [words]", "children: []", "'words' is out of the reach .* list it under detached"),
        ("name: skills_v1", "name: 2001-99-99", "not YAML"),
    ],
)
def test_yaml_errors_name_file_and_node(tmp_path, old, new, said):
    assert old in YAML
    with pytest.raises(TaxonomyError, match=said) as raised:
        write(tmp_path, "bad.yaml", YAML.replace(old, new))
    assert str(raised.value).startswith(f"{tmp_path / 'bad.yaml'}: ")


def test_yaml_that_is_no_mapping(tmp_path):
    with pytest.raises(TaxonomyError, match="must be a mapping"):
        write(tmp_path, "bad.yaml", "- a\n")


def test_specs_that_lead_nowhere(tmp_path):
    with pytest.raises(TaxonomyError, match=r"there are: .*starter"):
        load_taxonomy("builtin:nothing", tmp_path)
    with pytest.raises(TaxonomyError, match=r"correct the path 'absent\.tax'"):
        load_taxonomy("absent.tax", tmp_path)
    with pytest.raises(TaxonomyError, match=r"name a \.yaml"):
        load_taxonomy("notes.txt", tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaxonomyError, match=r"cannot be read .*; save it as UTF-8"):
        load_taxonomy("binary.yaml", tmp_path)


def test_an_absolute_path_ignores_the_base(tmp_path):
    (tmp_path / "t.yaml").write_text(YAML)
    assert load_taxonomy(str(tmp_path / "t.yaml"), Path("/nowhere")).name == "skills_v1"


def test_self_loop_and_long_cycle_are_named():
    with pytest.raises(TaxonomyError, match="a -> a form a cycle"):
        Taxonomy("t", {"r": (), "a": ("x",)}, (("r", "a"), ("a", "a")), "r")
    with pytest.raises(TaxonomyError, match="cycle") as raised:
        Taxonomy(
            "t",
            {"r": (), "a": ("x",), "b": (), "c": ()},
            (("r", "a"), ("a", "b"), ("b", "c"), ("c", "a")),
            "r",
        )
    assert raised.value.subject in {("a", "b"), ("b", "c"), ("c", "a")}
    with pytest.raises(TaxonomyError, match="no name"):
        Taxonomy("", {"r": ("x",)}, (), "r")


def test_a_task_may_stand_on_two_branches():
    taxonomy = Taxonomy("t", {"r": (), "a": ("x",), "b": ("x", "y")}, (("r", "a"), ("r", "b")), "r")
    assert taxonomy.tasks() == ("x", "y")
