"""Nouns without input and output: types, their invariants, nothing that opens a file, socket or store.

Belongs here: nouns that several layers share, one module each, with their invariants. Does not: anything that
opens a file, a socket or a store, and what only one layer needs.
"""
