"""Who answers like whom (Summarizer): groups, proxies, changes."""
