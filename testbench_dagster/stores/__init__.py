"""Where the stages exchange data: documents (SQLite or MongoDB) and datasets (SQLite or PostgreSQL).

Belongs here: the two stores, their addresses, and what both kinds of server need. Does not: what is stored
and why: the stages decide.
"""
