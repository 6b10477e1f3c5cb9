"""Asking (Requester): what is due is relayed, and every attempt stored.

Belongs here: asking suppliers what is due, probing what they can do, and storing every attempt. Does not:
what is due (`stages/plan`), and how it is sent (`relays`, `transports`).
"""
