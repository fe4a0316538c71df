"""Landmark Generation Module of ATL-Diff: the networks that make landmarks of speech."""
