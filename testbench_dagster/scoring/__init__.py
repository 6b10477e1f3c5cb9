"""Scoring: what a window says of its samples: rows, means, errors and intervals.

Belongs here: rows, means and intervals of samples, as functions of values. Does not: reading samples, and
computing a task's metrics (its framework does).
"""
