"""Taxonomy summaries (Summarizer)."""
