"""Evidence bundles over the stores: written for a dispute, and checked again elsewhere.

Belongs here: writing a bundle from the stores, and computing everything in one again. Does not: the form of a
bundle (`evidence` has it).
"""
