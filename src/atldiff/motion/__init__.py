"""What a face does while it speaks: the spoken landmarks, a smile that gives way, blinks, head, expression, rest."""
