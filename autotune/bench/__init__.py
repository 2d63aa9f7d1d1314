"""The load generator alone: sweeps against any endpoint, as a table, files and plots."""
