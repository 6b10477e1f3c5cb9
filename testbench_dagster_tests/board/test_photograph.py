"""The pictures of the board in the docs: there, small, and shown. Who takes them looks at them."""

from __future__ import annotations

import pytest
from PIL import Image

from testbench_dagster_tests.acceptance.documents import ROOT, document
from testbench_dagster_tests.board.photograph import PAGES

MOST_BYTES = 150_000
MOST_WIDE = 1300


@pytest.mark.parametrize("name", PAGES)
def test_a_picture_is_small_and_stands_in_the_docs(name: str) -> None:
    path = ROOT / "docs" / "images" / f"{name}.png"
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width <= MOST_WIDE
        assert picture.height == PAGES[name][1]
    assert f"](images/{name}.png)" in document("docs/board.md")
    assert f"](docs/images/{name}.png)" in document("README.md")
