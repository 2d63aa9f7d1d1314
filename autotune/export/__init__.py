"""Exports: the confirmed candidate as commands and files for production."""

from autotune.export.file import write_files
from autotune.export.targets import export, parse_target

__all__ = ["export", "parse_target", "write_files"]
