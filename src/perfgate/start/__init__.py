"""The few files that a repository needs to gate its code."""
