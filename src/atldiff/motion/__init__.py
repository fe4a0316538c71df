"""What a face does while it speaks, window by window: the spoken landmarks, blinks, head, expression, rest."""
