"""Whole models: their folders, their loading and saving, and conversion of what others published."""
