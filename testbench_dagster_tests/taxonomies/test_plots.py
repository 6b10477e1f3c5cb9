"""Pictures of abilities: what they show, where things stand, and that nothing in them is markup."""

import struct
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies import plots
from testbench_dagster.taxonomies.load import builtin_names, load_taxonomy
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import summarize
from testbench_dagster_tests.taxonomies.test_summary import weighted

TAXONOMY = Taxonomy(
    "t",
    {"all": (), "reading": ("x",), "maths": ("y",), "$later$": ("undefined_task1",), "apart": ("z",)},
    (("all", "reading"), ("all", "maths"), ("maths", "$later$"), ("apart", "reading")),
    "all",
    detached=("apart",),
)


def rows(measured):
    return summarize(TAXONOMY, measured).nodes


MEASURED = rows({"x": TaskScore(0.75, 40), "z": TaskScore(1.0, 5)})


def texts(svg):
    """What a picture says, from an SVG whose text is text."""
    return [
        "".join(element.itertext()).strip()
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.fixture(autouse=True)
def text_as_text(monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")


@pytest.mark.parametrize("draw", [plots.dag, plots.bars])
def test_a_supplier_shows_every_node_with_its_numbers_or_why_there_are_none(draw):
    said = texts(draw(TAXONOMY, MEASURED, "t: $a$ <b>", plots.SIMULATED, "svg"))
    for wanted in ("all", "reading", "maths", "$later$", "apart", "t: $a$ <b>", plots.SIMULATED):
        assert wanted in said
    assert "no task yet" in said and "no data" in said
    low, high = MEASURED["reading"].ci_low, MEASURED["reading"].ci_high
    assert f"0.75 [{low:.2f}, {high:.2f}]" in said


def test_a_heat_map_ranks_and_says_how_many_it_leaves_out():
    suppliers = {f"s{i:02}@x": rows({"x": TaskScore(i / 20, 20)}) for i in range(9)}
    suppliers["nobody@x"] = rows({})
    said = texts(plots.heatmap(TAXONOMY, suppliers, "Abilities", plots.SIMULATED, "svg", most=4))
    shown = [text for text in said if text.endswith("@x")]
    assert shown == ["s08@x", "s07@x", "s06@x", "s05@x"]
    assert f"The best 4 of 10 suppliers. {plots.SIMULATED}" in " ".join(said), "it may be wrapped"
    assert "$later$" in said
    assert said.count("40") == 2, "root and reading of s08"
    everyone = texts(plots.heatmap(TAXONOMY, suppliers, "Abilities", "", "svg"))
    assert [text for text in everyone if text.endswith("@x")][-1] == "nobody@x"


def test_pngs_are_pngs_small_enough_for_an_event():
    for image in (
        plots.dag(TAXONOMY, MEASURED, "t"),
        plots.bars(TAXONOMY, {}, "t"),
        plots.heatmap(TAXONOMY, {"a" * 80: MEASURED}, "t"),
        plots.heatmap(TAXONOMY, {}, "t"),
    ):
        assert image.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", image[16:24])
        assert 300 < width < 2000 and 150 < height < 2000
        assert len(image) < 60_000


@settings(max_examples=40, deadline=None)
@given(weighted())
def test_no_two_nodes_stand_in_one_place_and_edges_lead_right(taxonomy):
    check_layout(taxonomy)


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_taxonomies_are_laid_out(name):
    check_layout(load_taxonomy(f"builtin:{name}", Path("/nowhere")))


def check_layout(taxonomy):
    places = plots.layout(taxonomy)
    assert set(places) == set(taxonomy.nodes)
    for column in {x for x, _ in places.values()}:
        heights = sorted(y for x, y in places.values() if x == column)
        assert all(b - a >= 0.999 for a, b in pairwise(heights))
    assert all(places[parent][0] < places[child][0] for parent, child in taxonomy.edges)
