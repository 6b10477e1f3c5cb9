"""What is asked (Sampler): datasets and the epoch's prompts."""
