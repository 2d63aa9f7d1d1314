"""Calibration: the simulator's constants, fitted to what launches of a study showed."""
