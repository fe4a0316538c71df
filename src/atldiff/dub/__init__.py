"""Other words in the mouth of somebody in a video; all else stays."""
