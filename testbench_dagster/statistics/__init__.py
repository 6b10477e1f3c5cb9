"""Statistics of scores. Pure functions of numbers: no storage, no Dagster.

Belongs here: intervals, sequences, detectors, ranks: functions of numbers, each with its source. Does not:
names of suppliers and tasks, and where the numbers come from.
"""
