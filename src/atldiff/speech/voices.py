"""The voices that can say a text. Costs no heavy import until it is asked for them."""

DEFAULT_VOICE = "heart"


def voices() -> list[str]:
    """Names of the voices that are here: none without the extra ``tts``, and no download is ever begun."""
    try:
        from hibari.voices import VOICES, voice_path
    except ImportError:
        return []
    found = []
    for name in VOICES:
        try:
            voice_path(name, download_missing=False)
        except FileNotFoundError:
            continue
        found.append(name)
    return found
