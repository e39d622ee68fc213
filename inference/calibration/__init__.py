"""Simulation-based calibration: simulated data sets, ranks of true values among draws, and what they say."""
