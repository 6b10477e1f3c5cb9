"""What leaves the stores: pages, feeds, parquet.

Belongs here: files for people, gateways and analysts, each whole or not there. Does not: how ranks and scores
come about.
"""
