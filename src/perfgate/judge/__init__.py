"""What was measured, and what follows from it: pure numbers in, named verdicts out."""
