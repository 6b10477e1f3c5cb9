"""Tests of the stores, on real SQLite files and real MongoDB and PostgreSQL servers."""
