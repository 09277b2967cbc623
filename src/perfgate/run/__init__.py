"""Measuring: one benchmark, and processes that measure many."""
