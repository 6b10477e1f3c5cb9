"""Who the suppliers are (Manager): the roster, heights and sessions.

Belongs here: the roster with its history, block heights, and sessions of Pocket Network. Does not: how a
source or a chain is read (`transports` does).
"""
