"""Stored things name what made them: a changed source does not go unnoticed."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import testbench_dagster
from testbench_dagster.core import versions
from testbench_dagster.core.versions import Version
from testbench_dagster_tests.core.reaching import definition

ROOT = Path(testbench_dagster.__file__).parent.parent
#: The number of each version, and the hash of its source when that was looked at last.
LOOKED_AT = {
    "CLASSIFIER": (3, "347f64087ae658bc0adddaec0f14ca1007cc6b82902923d5c2a72a739ec31a7e"),
    "PAYLOADS": (1, "fd2403609b02cdd4b63bb3c0647671260be84d4c2802b2ccbef1513d41780f85"),
    "SCORER": (2, "36f9c5ec1e095a28160ad7a0ac5a290864f7a78410e6a32c38efe0a7e7817188"),
    "TOOLS": (1, "88abcad36c7c795f18cbb02ed5f7ef2c059564c665a0a4cd8f5847efc3af5398"),
    "TWINS": (1, "beb3afcde22220bab9cf7471ea0b1105abefd18fe4fc61d61a57dd88b53119bf"),
    "FRESH": (1, "79c3c2dc746cd8b453dfe2e5a0719f03551b5155f0bd848e0928b7f2ad89cf50"),
    "CODE": (1, "468dd7aed81dfa66079b56cc8716046515bebaa2de3aaa680f3c7b90270fa7de"),
    "WINDOWS": (9, "55c5a785bd5512d37962f788e95382b2d68195bb3967c24929ad445ff7adb11f"),
    "PLANS": (10, "7321f4de9c96c9c40e19e7602f4fee602f9822f915ccd4360d51286ff72b7f2d"),
    "SCORE_STREAMS": (3, "40b01bf641bad73ecd925cd5fb0011379d7bc3d0f8d862895f426d39afd51112"),
    "SPLITS": (1, "cad8ff94024658c30408a74cc95a8d99c747e79d624fd019aef4ca9f3b346507"),
    "PUBLIC_GAPS": (1, "60bd6195bba3336f1ca7474b882c1b4c82296b94a423b83a505b0189d7802503"),
}
PINNED = {name: value for name, value in vars(versions).items() if isinstance(value, Version)}
#: Fields of syntax trees that say nothing of what is done, or that only some versions of Python have.
_SILENT = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


def source_hash(sources: Sequence[str], root: Path = ROOT) -> str:
    """SHA-256 over what the sources do: the same on every Python, whatever is said about them."""
    digest = hashlib.sha256()
    for source in sources:
        module, _, name = source.partition(":")
        digest.update(repr(list(_signs(_definition(root, module, name)))).encode())
    return digest.hexdigest()


def _definition(root: Path, module: str, name: str) -> ast.AST:
    path = root.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    missing = (
        f"versions.py names {module}{f':{name}' if name else ''}, which is not there any more: correct it"
    )
    assert path.is_file(), missing
    found = definition(ast.parse(path.read_text(encoding="utf-8")), name)
    assert found is not None, missing
    return found[0]


def _signs(node: Any) -> Iterator[Any]:
    """What is done, in order; without docstrings, and of imports only the names they bring."""
    if isinstance(node, list):
        yield len(node)
        for item in node:
            yield from _signs(item)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield sorted(alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.AST):
        yield type(node).__name__
        for field, value in ast.iter_fields(node):
            if field == "body" and isinstance(value, list) and value and _is_text(value[0]):
                value = value[1:]
            if field not in _SILENT and value not in (None, []):
                yield field
                yield from _signs(value)
    else:
        yield repr(node)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and type(node.value.value) is str
    )


@pytest.mark.parametrize("name", PINNED)
def test_a_changed_source_has_a_new_number_or_a_word_that_nothing_changed(name: str) -> None:
    pinned = PINNED[name]
    found = source_hash(pinned.sources)
    assert (pinned.number, found) == LOOKED_AT.get(name), (
        f"the source behind {name} changed. If anything stored would come out otherwise than before, raise "
        f"its number {pinned.number} in core/versions.py; in any case write into LOOKED_AT: {found}"
    )


# ------------------------------------------------------------------------------ what the hash notices

SOURCE = '''"""A module."""
from somewhere import thing


class Judge:
    """It judges."""

    def verdict(self, status: int) -> str:
        """Say it."""
        # a remark
        return "bad" if status >= 500 else "good"
'''


def hashed(tmp_path: Path, text: str, source: str = "judging") -> str:
    (tmp_path / "judging.py").write_text(text, encoding="utf-8")
    return source_hash([source], tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A module.", "Another text."),
        ("It judges.", "It is just."),
        ("        # a remark\n", ""),
        ('"bad" if status', '("bad"  if status'),
        ("from somewhere import", "from elsewhere.below import"),
    ],
)
def test_words_and_looks_do_not_matter(tmp_path: Path, old: str, new: str) -> None:
    text = SOURCE.replace(old, new)
    if "(" in new:
        text = text.replace('else "good"', 'else "good")')
    assert text != SOURCE
    assert hashed(tmp_path, text) == hashed(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (">=", ">"),
        ("500", "501"),
        ('"bad"', '"ill"'),
        ("status >= 500", "not status >= 500"),
        ("thing", "item"),
    ],
)
def test_what_is_done_matters(tmp_path: Path, old: str, new: str) -> None:
    assert hashed(tmp_path, SOURCE.replace(old, new)) != hashed(tmp_path, SOURCE)


def test_a_definition_alone_can_be_named(tmp_path: Path) -> None:
    one = hashed(tmp_path, SOURCE, "judging:Judge.verdict")
    assert hashed(tmp_path, SOURCE + "\n\nELSE = 1\n", "judging:Judge.verdict") == one
    assert hashed(tmp_path, SOURCE.replace("500", "501"), "judging:Judge.verdict") != one
    with pytest.raises(AssertionError, match=r"judging:Judge\.sentence, which is not there any more"):
        hashed(tmp_path, SOURCE, "judging:Judge.sentence")
