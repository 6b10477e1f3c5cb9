"""A simulated Pocket network on loopback: a chain, its node, relay miners, and faults of both.

For the demo, for tests and for training. Nothing here is real: keys are derived from names
(``SHA256("sim:<seed>:<name>")``), tokens are worth nothing, blocks are numbers on a clock. What is asked of
it and what it answers is as on the real network, though: signatures are checked and made, sessions roll,
budgets run out.

Belongs here: the simulated chain, node, miners and gateway, and the faults that can be switched on. Does not:
the code that it is measured by; what both need of the wire comes from `transports/pocket`.
"""
