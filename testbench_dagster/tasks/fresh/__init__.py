"""The framework ``fresh``: questions that nobody has seen, drawn anew in every epoch by ``reasoning-gym``.

Thirty of its 106 generators, one task each (``fresh_gcd``, …). What an epoch asks follows from its committed
seed alone: a supplier can neither have learnt it nor have kept answers to it, and who has the seed draws the
same again.

Belongs here: which generators may be used, drawing, reading and judging of such items. Does not: another way
to reach ``score_answer`` of that package than the confined child of ``judge_child``.
"""
