"""Who is asked what and when (Manager): the planner over the stores, and the plans it caches.

Belongs here: reading the facts that a plan depends on, and the plan cache that sensors look at. Does not: the
rules themselves (`planning` has them).
"""
