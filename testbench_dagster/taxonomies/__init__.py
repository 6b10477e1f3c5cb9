"""Taxonomies: which tasks measure which ability, and the abilities' scores that follow from task scores.

Belongs here: forms of taxonomies, their scores from task scores, and pictures of both. Does not: windows,
stored summaries, and which tasks are configured.
"""
