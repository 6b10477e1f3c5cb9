"""Who answers like whom (Summarizer): groups, proxies, changes.

Belongs here: reading answers for `identity`, recording changes with their cuts, and storing groups. Does not:
how groups and changes are decided.
"""
