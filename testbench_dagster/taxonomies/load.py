"""Finds and reads taxonomies as `testbench.yaml` names them."""

from __future__ import annotations

from pathlib import Path

from testbench_dagster.taxonomies import tax_format, yaml_format
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError

_BUILTIN = "builtin:"
_FOLDER = Path(__file__).parent / "builtin"


def builtin_names() -> tuple[str, ...]:
    """Taxonomies that come with the package, to be named ``builtin:<name>``."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_taxonomy(spec: str, base: Path) -> Taxonomy:
    """The taxonomy ``spec`` names: ``builtin:<name>``, or a `.yaml`, `.yml` or `.tax` file.

    Relative paths start at ``base``, the folder of the configuration. Raises TaxonomyError naming the file,
    the line or node at fault, and what to do.
    """
    path = taxonomy_path(spec, base)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaxonomyError(f"{path}: the taxonomy cannot be read ({error}); save it as UTF-8") from error
    except OSError as error:
        raise TaxonomyError(
            f"{path}: the taxonomy cannot be read ({error}); correct the path {spec!r}"
        ) from error
    try:
        return tax_format.parse(text) if path.suffix == ".tax" else yaml_format.parse(text)
    except tax_format.LineError as error:
        raise TaxonomyError(f"{path}:{error.line}: {error}") from error
    except TaxonomyError as error:
        raise TaxonomyError(f"{path}: {error}", error.subject) from error


def taxonomy_path(spec: str, base: Path) -> Path:
    """Where the taxonomy ``spec`` is. Raises TaxonomyError where it can be none."""
    if spec.startswith(_BUILTIN):
        name = spec.removeprefix(_BUILTIN)
        if name not in builtin_names():
            raise TaxonomyError(f"no built-in taxonomy {name!r}; there are: {', '.join(builtin_names())}")
        return _FOLDER / f"{name}.yaml"
    path = base / spec
    if path.suffix not in (".yaml", ".yml", ".tax"):
        raise TaxonomyError(f"{spec!r} is no taxonomy; name a .yaml, .yml or .tax file, or builtin:<name>")
    return path
