"""Exports: the confirmed candidate as commands and files for production."""
