"""Measuring and judging implementations: time, peak memory, baselines and verdicts."""
