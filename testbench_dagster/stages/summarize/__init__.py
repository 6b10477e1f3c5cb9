"""Taxonomy summaries (Summarizer).

Belongs here: windows of a supplier rolled up into the configured taxonomies, and stored. Does not: how a
taxonomy is read and computed (`taxonomies` does).
"""
