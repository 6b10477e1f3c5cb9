"""What leaves the stores: pages, feeds, parquet."""
