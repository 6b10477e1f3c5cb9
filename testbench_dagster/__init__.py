"""Measures language-model suppliers continuously: lm-eval scores with evidence, as Dagster assets."""

__version__ = "0.1.0"
