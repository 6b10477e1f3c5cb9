"""Metadata as markdown: whatever a name is, a table stays a table and a picture a picture."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from testbench_dagster.defs.metadata import Markdown, counts, counts_in, inert, markdown_table, picture

PIECES = st.sampled_from(
    [
        "|",
        "\n",
        "\\",
        "`",
        "*",
        "_",
        "[",
        "](",
        ")",
        "<",
        ">",
        "!",
        "#",
        "&lt;",
        "{{",
        "%}",
        "~~",
        "-",
        "x",
        " ",
    ]
)
TEXT = st.text(max_size=20) | st.lists(PIECES, max_size=20).map("".join)


def parsed(markdown: str | None) -> list[Token]:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return parser.parse(markdown or "")


@given(st.lists(TEXT, min_size=2, max_size=2), st.lists(st.tuples(TEXT, TEXT), max_size=3))
def test_no_text_leaves_its_cell_or_becomes_markup(headers, rows) -> None:
    tokens = parsed(markdown_table(headers, rows).value)
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 1
    assert kinds.count("td_open") == 2 * len(rows)
    assert kinds.count("tr_open") == 1 + len(rows)
    inside = {child.type for token in tokens for child in token.children or ()}
    assert inside <= {"text", "text_special"}


@given(TEXT, TEXT)
def test_a_picture_has_one_image_and_its_note(title: str, note: str) -> None:
    tokens = parsed(picture(title, b"\xfb\xff\xfe" * 20, note).value)
    (image,) = [child for token in tokens[:3] for child in token.children or ()]
    assert image.type == "image"
    assert str(image.attrs["src"]).startswith("data:image/png;base64,+//++//+")
    after = {child.type for token in tokens[3:] for child in token.children or ()}
    assert after <= {"text", "text_special"}


def test_numbers_unknowns_and_our_own_markdown() -> None:
    table = markdown_table(["n", "%"], [[0.123456, None], [3, Markdown("**so**")]]).value
    assert table == "| n | % |\n|---|---|\n| 0.1235 | – |\n| 3 | **so** |"
    assert inert("x" * 300) == "x" * 200
    assert markdown_table(["a"], []).value == "| a |\n|---|"


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.integers(1, 10**9)))
def test_a_histogram_is_read_as_it_was_written(values: dict[str, int]) -> None:
    assert counts_in(counts(values)) == values
