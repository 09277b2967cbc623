"""What is kept: baselines, their calibration, exact figures, the last run."""
