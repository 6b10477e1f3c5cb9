"""The leaderboard as values, page and feeds: pure functions of entries."""
