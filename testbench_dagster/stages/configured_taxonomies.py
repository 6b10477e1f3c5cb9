"""The taxonomies of the configuration as their files have them."""

from __future__ import annotations

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.taxonomies.load import load_taxonomy
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError


def read_taxonomies(config: Config) -> list[Taxonomy]:
    """Read the taxonomies of the configuration, in its order; groups in them stand for themselves.

    Raises:
        ConfigError: one cannot be read, makes no sense, or has another's name; names the key.
    """
    read: dict[str, Taxonomy] = {}
    for position, spec in enumerate(config.settings.taxonomies):
        where = key_of(config, position)
        try:
            taxonomy = load_taxonomy(spec, config.base)
        except TaxonomyError as error:
            raise ConfigError(f"{where}: {error}") from error
        if taxonomy.name in read:
            raise ConfigError(f"{where}: {spec!r} gives the name {taxonomy.name!r} a second time; remove one")
        read[taxonomy.name] = taxonomy
    return list(read.values())


def key_of(config: Config, position: int) -> str:
    """File and key of a configured taxonomy, for messages."""
    return f"{config.path}: taxonomies[{position}]"
