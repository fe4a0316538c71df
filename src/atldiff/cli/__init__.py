"""The command line."""

from atldiff.cli.entry import main

__all__ = ["main"]
