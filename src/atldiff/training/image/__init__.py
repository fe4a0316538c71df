"""How the image networks learn."""
