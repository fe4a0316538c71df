"""Frames while it is still being spoken, and faces that talk in real time."""
