"""Plain HTTP to an OpenAI-compatible endpoint."""
