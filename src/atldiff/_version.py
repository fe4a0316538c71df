"""The package's version, for what lies below its root."""

__version__ = "0.1.0"
