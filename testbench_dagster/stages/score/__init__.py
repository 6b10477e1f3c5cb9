"""Scoring (Evaluator): answers to scores, scores to windows.

Belongs here: scoring stored answers, samples, windows, and the window cache. Does not: what a score is (the
task's framework), and how windows are computed (`scoring`).
"""
