"""All pictures that the docs show are taken by the one command, and it takes no others."""

from __future__ import annotations

import re
from pathlib import Path

from testbench_dagster_tests.acceptance.documents import ROOT
from testbench_dagster_tests.board.photograph import PAGES
from testbench_dagster_tests.operations import test_ui


def test_every_picture_of_the_docs_is_taken_and_shown() -> None:
    source = Path(test_ui.__file__).read_text(encoding="utf-8")
    taken = {*PAGES, *re.findall(r'browser\.picture\("(\w+)"\)', source)}
    assert taken == {path.stem for path in (ROOT / "docs" / "images").glob("*.png")}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    assert taken == set(re.findall(r"images/([\w-]+)\.png\)", text))
