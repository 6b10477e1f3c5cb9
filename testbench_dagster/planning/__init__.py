"""Planning: which prompts a supplier is asked next, as pure functions of what is already known.

Belongs here: what is due, gates, schedules, fair shares and budgets as functions of facts. Does not: reading
the facts (`stages/plan` does), or sending anything.
"""
