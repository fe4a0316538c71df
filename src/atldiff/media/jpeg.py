"""Single pictures as JPEG files that say, as an mp4 does in its manifest, that they are synthetic."""

import io

import numpy as np
from PIL import Image

from atldiff.media.provenance import DIGITAL_SOURCE_TYPE

_MARK = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>""".encode()
"""IPTC Photo Metadata, in XMP."""


def encode_jpeg(picture: np.ndarray, quality: int = 85, longest: int | None = None) -> bytes:
    """(H, W, 3) uint8 RGB → a JPEG file, with its longer side reduced to ``longest`` pixels if that is given."""
    image = Image.fromarray(picture)
    if longest is not None:
        image.thumbnail((longest, longest))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, xmp=_MARK)
    return stream.getvalue()
