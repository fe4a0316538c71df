"""Text that comes from elsewhere, made harmless before it is shown."""

LONGEST = 200


def printable(text: str) -> str:
    """``text`` with its control characters, line ends and marks of writing direction as escapes: ``\\x1b``.

    A terminal can then take no orders from it, and no line looks like one of ours that is none.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted(text: object) -> str:
    """What others wrote, between quotation marks that it cannot leave, and cut where it is very long."""
    plain = printable(str(text).replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{plain}"' if len(plain) <= LONGEST else f'"{plain[:LONGEST]}" …'
