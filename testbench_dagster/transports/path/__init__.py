"""Relays through a PATH gateway of Pocket Network.

Belongs here: what is special about a gateway: its headers, its errors, its own check. Does not: signatures
and sessions of our own.
"""
