"""The pages: one module each, a function from what was asked to a template and what it shows.

Belongs here: choosing what to read, and bringing it into the order in which a page shows it. Does not: HTTP,
markup, or arithmetic of scores.
"""
