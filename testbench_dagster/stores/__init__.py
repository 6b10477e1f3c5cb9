"""Where the stages exchange data: documents (SQLite or MongoDB) and datasets (SQLite or PostgreSQL).

Belongs here: the two stores, their addresses, what both kinds of server need, and what is said of files that
cannot be written. Does not: what is stored and why: the stages decide.
"""
