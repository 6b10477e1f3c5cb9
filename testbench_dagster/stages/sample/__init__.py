"""What is asked (Sampler): datasets and the epoch's prompts.

Belongs here: datasets as registered, epochs with their seeds, and prompts in the order of the seed. Does not:
who is asked which of them.
"""
