"""Engines: what is launched, how, and how it fails."""
