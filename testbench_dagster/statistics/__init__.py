"""Statistics of scores. Pure functions of numbers: no storage, no Dagster."""
