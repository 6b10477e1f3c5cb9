"""Words that a stranger had to learn and that the glossary replaced do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import testbench_dagster

PACKAGE = Path(testbench_dagster.__file__).parent
DOCS = PACKAGE.parent / "docs"
#: Word, where it is meant, and what to say instead.
REPLACED = [
    (r"\bhearts?\b", "**/*.py", "heartbeat"),
    (r"purses?", "**/*.py", "relay budget"),
    (r"\bsettled\b", "**/*.py", "final"),
    (r"offenders?", "**/*.py", "violations"),
    (r"\b_kept\b|\bkept (plan|row|window)s?\b", "**/*.py", "cached"),
    (r"\bopen(ing|ings|ed)\b", "identity/*.py", "answer prefix, began"),
    (r"\bopenings?\b", "core/answer_prefix.py", "answer prefix"),
    (r"\bopenings? = answer_prefix", "**/*.py", "prefix"),
    (r"(?<![.\w])catalogues?\b", "**/*.py", "catalog"),
]
#: Names that others read: keys of metadata in Dagster, an address, what ids of stored changes follow from.
PUBLIC = re.compile(r'"(settled|offenders|n_offenders|/catalogue)"|^OF_PREFIXES = "openings"$', re.M)


def found(word: str, text: str) -> list[str]:
    return [line.strip() for line in PUBLIC.sub("", text).splitlines() if re.search(word, line, re.I)]


@pytest.mark.parametrize(("word", "where", "instead"), REPLACED)
def test_the_code_uses_the_words_of_the_glossary(word: str, where: str, instead: str) -> None:
    paths = sorted(PACKAGE.glob(where))
    assert paths
    lines = [
        f"{path.relative_to(PACKAGE)}: {line}"
        for path in paths
        for line in found(word, path.read_text("utf-8"))
    ]
    assert lines == [], f"say {instead}"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_the_documents_use_them_too(page: Path) -> None:
    text = re.sub(r"`(settled|offenders|n_offenders)`|by heart", "", page.read_text("utf-8"))
    for word, where, instead in (*REPLACED[:4], REPLACED[-1]):
        assert where == "**/*.py"
        assert found(word, text) == [], f"say {instead}"


def test_the_search_finds_them() -> None:
    assert found(r"\bsettled\b", 'x = metadata["settled"]\n# none was settled') == ["# none was settled"]
    assert found(r"\bhearts?\b", '"""Hearts: alive."""\nheartbeat') == ['"""Hearts: alive."""']
