"""The leaderboard as values and feeds: pure functions of entries.

Belongs here: ranks, ties, entries, places, and the feeds made of them. Does not: reading the stores, writing
files, serving them, or pages.
"""
