"""Constrained Bayesian optimisation: a Gaussian process for each quantity, crashes told apart from values."""
