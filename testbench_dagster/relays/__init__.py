"""Relaying: sending prompts to suppliers, classifying what comes back, keeping every attempt as evidence."""
