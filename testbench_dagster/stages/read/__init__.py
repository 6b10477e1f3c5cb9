"""The read model: pages of answers and history, for the board, the commands, the Python face and exports.

Belongs here: reading what people look at, a page at a time, at a cost that does not grow with history. Does
not: writing, arithmetic of scores, or a form of showing.
"""
