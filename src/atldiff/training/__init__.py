"""How the networks learn; nothing below imports it."""
