"""The work of the platform over the stores: the only place where stores and engines meet.

Belongs here: one module or package per stage: reads stores, calls engines, writes stores. Does not: formulas,
wire formats, when a stage runs, and what is shown of it.
"""
