"""Service quality: how fast suppliers answer, and whether they do, by streamed probes that enter no score.

Belongs here: when suppliers are probed and within which budget, probing them, and what is told of it. Does
not: quality relays (`stages/relay`), and how a stream is read (`transports`).
"""
