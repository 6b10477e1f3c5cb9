"""Pages and feeds served over HTTP."""
