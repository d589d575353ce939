"""Scores, comparisons, benchmarks."""
