"""Nouns without input and output: types, their invariants, nothing that opens a file, socket or store."""
