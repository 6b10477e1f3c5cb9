"""Taxonomies: which tasks measure which ability, and the abilities' scores that follow from task scores."""
