"""Localnet: simulated OpenAI-compatible suppliers on loopback, for the demo, for tests and for training.

Everything here is a simulation and says so: model names start with ``simulated-`` and the roster carries
``"simulation": true``. What a supplier answers is a function of the seed, so runs can be repeated exactly.

Belongs here: simulated suppliers, their faults and clocks, and the demo's configuration. Does not: anything
that measures; nothing but the demo imports it.
"""
