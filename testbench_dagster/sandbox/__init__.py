"""Walls around code and text that nobody trusts; they need no store and know nothing of tasks.

Belongs here: ways to confine a process, what each of them holds back, and how it is found out whether this
machine has them. Does not: what runs inside, and what its result means.
"""
