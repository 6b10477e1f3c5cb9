"""Scoring: stored answers become score documents, score documents become windows."""
