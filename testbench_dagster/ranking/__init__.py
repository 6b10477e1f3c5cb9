"""The leaderboard as values, page and feeds: pure functions of entries.

Belongs here: ranks, ties, entries, and the page and feeds made of them. Does not: reading the stores, writing
files, or serving them.
"""
