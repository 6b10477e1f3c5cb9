"""Twins: public questions beside fresh ones of the same kind.

Belongs here: the framework. Does not: where questions come from, which is :mod:`.sources`.
"""
