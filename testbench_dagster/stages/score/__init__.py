"""Scoring (Evaluator): answers to scores, scores to windows."""
