"""How the landmark generators, the speech encoder and the emotion classifier learn."""
