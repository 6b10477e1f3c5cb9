"""Relaying: the engine that sends many relays to many suppliers at once, within their limits.

Belongs here: queues, limits, retries and the engine that drives any transport. Does not: what is due, how a
transport sends, and where attempts are stored.
"""
