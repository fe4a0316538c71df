"""Landmarks-Guide Noise and 3D Identity Diffusion of ATL-Diff: landmarks to pictures."""
