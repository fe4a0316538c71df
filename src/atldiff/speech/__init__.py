"""Sound, as every part of the package hears it."""

SAMPLE_RATE = 16_000
"""Samples per second, one channel."""
