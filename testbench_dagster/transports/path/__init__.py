"""Relays through a PATH gateway of Pocket Network."""
