"""Plain HTTP to an OpenAI-compatible endpoint.

Belongs here: what is special about plain HTTP: addresses, keys, headers. Does not: classifying answers
(`transports/answers.py`).
"""
