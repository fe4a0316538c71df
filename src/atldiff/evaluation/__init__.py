"""How good what is made is, against what is true."""
