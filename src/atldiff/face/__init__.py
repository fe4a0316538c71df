"""The one who is to speak: a portrait, its face, the 68 landmarks, the crop that the networks see."""
