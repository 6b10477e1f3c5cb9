"""Where the stages exchange data: documents (SQLite or MongoDB) and datasets (SQLite or PostgreSQL)."""
