"""Finished files: one video, a dubbed one, many from a table."""
