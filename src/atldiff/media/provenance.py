"""The mark of synthetic content: a signed C2PA manifest in a file, plain metadata beside it, and reading both back.

The manifest (C2PA specification 2.4) says that the file was created as a composite with trained algorithmic media,
and by which version of this software. Hashes bind it to the content: one for each MiB of the media data (``merkle``
of ``c2pa.hash.bmff.v3``), one for everything else. Nothing here uses the network: there is no timestamp authority,
and manifests that lie elsewhere and revocation lists are not fetched.
"""

import contextlib
import datetime
import hashlib
import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import c2pa

from atldiff._version import __version__
from atldiff.errors import InputError
from atldiff.media.files import existing_file, open_media
from atldiff.media.signing import SigningIdentity, known_certificate, signing_material

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC NewsCodes. A composite: portrait and speech are given, what the face does comes from a trained model."""

MARK_METADATA = {
    "comment": f"Synthetic media, made by ATL-Diff {__version__}: {DIGITAL_SOURCE_TYPE}",
    "keywords": "synthetic",
}
"""The plain fields of the mp4 itself; whoever copies the file may drop or change them unnoticed."""

INTACT, DAMAGED, METADATA, UNMARKED = "intact", "damaged", "metadata", "unmarked"
"""A manifest that fits the content; one that does not; plain metadata alone; none of these."""

MEDIA_DATA, INDEX, STATEMENTS, SIGNATURE, MANIFEST = "media data", "index", "statements", "signature", "manifest"
"""What may not fit: picture or sound; index and metadata; what the manifest states; its signature; its form."""

_SYNTHETIC = "trainedAlgorithmicMedia"
_EXPECTED_FILE = "an mp4, mov, GIF, WebM or JPEG"
_EXPECTED_CHAIN = "expected a valid C2PA signing chain, see docs/responsible-use.md"
_MANIFEST_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_BLOCK_KIB = 1024
_LARGEST_BLOCK = 1 << 28
_MDAT_UNHASHED_BYTES = 16
_ENVIRONMENT = threading.Lock()
_USUAL_TEMPORARY = None if sys.platform == "win32" else "/tmp"
_GIF_MANIFEST = b"\x21\xff\x0bC2PA_GIF"
_XMP_BYTES = 1 << 16
_MOST_READINGS = 30
_SMALLEST_PICTURE = b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "builder": {"thumbnail": {"enabled": False}},
    "core": {
        "merkle_tree_chunk_size_in_kb": _BLOCK_KIB,
        "merkle_tree_max_proofs": 0,
        "backing_store_memory_threshold_in_mb": 16,
    },
}
"""With blocks the library hashes in constant memory; a copy of more than 16 MB waits in a temporary file."""


@dataclass(frozen=True)
class Provenance:
    """What a file says of its origin.

    Attributes:
        state: :data:`INTACT`, :data:`DAMAGED`, :data:`METADATA` or :data:`UNMARKED`.
        damaged: which parts do not fit (:data:`MEDIA_DATA` …), where the state is :data:`DAMAGED`.
        signer: name in the signing certificate, None without a readable manifest.
        trusted: whether that certificate leads to one of those that are trusted.
        software: what made the file, with its version.
        source_type: the digital source type that the manifest states.
        made_at: when, by the signer's own clock.
        comment: the plain metadata that says "synthetic".
        details: the validator's own codes and explanations of what does not fit.
    """

    state: str
    damaged: tuple[str, ...] = ()
    signer: str | None = None
    trusted: bool = False
    software: str | None = None
    source_type: str | None = None
    made_at: str | None = None
    comment: str | None = None
    details: tuple[str, ...] = ()


def sign_mp4(source: Path, target: Path, identity: SigningIdentity, kind: str = "video/mp4") -> None:
    """Copy an mp4, or what ``kind`` says, to ``target`` with a signed manifest in it, in constant memory.

    The work is done in a thread of its own: a signal would be lost in the library's calls back into Python. Where the
    folder for temporary files is missing or has no room, the library's own copy waits beside ``target``.

    Raises:
        OSError: signing fails (a full disk); what ``target`` then holds is of no use.
        InputError: the certificate or the key cannot be used.
    """
    with (
        source.open("rb") as unsigned,
        target.open("w+b") as signed,
        _room_for_a_copy(source.stat().st_size, target.parent),
        ThreadPoolExecutor(1) as worker,
    ):
        try:
            worker.submit(_sign, unsigned, signed, identity, kind).result()
        except c2pa.C2paError as error:
            raise OSError(f"signing failed: {error}") from error


@contextlib.contextmanager
def _room_for_a_copy(size: int, beside: Path) -> Iterator[None]:
    """Lets the library put a temporary file of ``size`` bytes where there is room for it; it asks the environment."""
    name = "TMP" if sys.platform == "win32" else "TMPDIR"
    with _ENVIRONMENT:
        before = os.environ.get(name)
        if _has_room(before or _USUAL_TEMPORARY, size):
            yield
            return
        os.environ[name] = str(beside)
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def _has_room(folder: str | None, size: int) -> bool:
    try:
        return folder is None or (shutil.disk_usage(folder).free > 2 * size and os.access(folder, os.W_OK))
    except OSError:
        return False


def check_identity(identity: SigningIdentity) -> None:
    """Sign something small, so that a certificate that cannot sign is found before the work and not after it.

    Raises:
        InputError: the certificate or the key cannot be used.
    """
    signed = io.BytesIO()
    try:
        _sign(io.BytesIO(_SMALLEST_PICTURE), signed, identity, "image/gif")
        manifest = _read_manifest(signed, "image/gif", "")
    except c2pa.C2paError as error:
        raise InputError(f"{identity.certificate} cannot sign ({error}); {_EXPECTED_CHAIN}") from error
    if faults := [fault for fault in _faults(manifest or {}) if fault["code"].startswith("signingCredential")]:
        raise InputError(f"{identity.certificate} cannot sign ({faults[0]['explanation']}); {_EXPECTED_CHAIN}")


def read_provenance(path: str | Path, trust: str | Path | None = None) -> Provenance:
    """What a video says of its origin, and whether that still fits its content.

    A WebM and a JPEG are looked through for plain metadata alone: C2PA knows no place in the one, and no manifest is
    made for the other.

    Args:
        path: an mp4, mov, GIF, WebM or JPEG.
        trust: PEM file of the root certificates to trust; None means the user's own.

    Raises:
        InputError: no such file, or no certificates in ``trust``.
    """
    path = existing_file(path, _EXPECTED_FILE)
    trust = known_certificate() if trust is None else Path(trust)
    anchors = "" if trust is None else _anchors(trust)
    with path.open("rb") as stream:
        signed_as, comment_of = _kind(stream, path)
        try:
            store = _read_surely(stream, signed_as, anchors) if signed_as else None
        except (c2pa.C2paError, ValueError, RecursionError) as error:
            if not _has_manifest(stream):
                raise InputError(f"{path} cannot be read ({error}); expected {_EXPECTED_FILE}") from error
            return Provenance(DAMAGED, (MANIFEST,), comment=_readable(comment_of, path), details=(str(error),))
        if store is None:
            comment = comment_of(path)
            return Provenance(METADATA if comment else UNMARKED, comment=comment)
        return _judge(store, stream, _readable(comment_of, path))


def _kind(stream: BinaryIO, path: Path) -> tuple[str, Callable[[Path], str | None]]:
    """The media type under which a file may be signed, empty where none is made, and what reads its plain metadata.
    Raises InputError: another kind."""
    stream.seek(0)
    head = stream.read(12)
    if head[4:8] == b"ftyp":
        return "video/mp4", _comment
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif", _no_comment
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "", _comment
    if head.startswith(b"\xff\xd8\xff"):
        return "", _xmp
    raise InputError(f"{path} is something else; expected {_EXPECTED_FILE}")


def _sign(unsigned: BinaryIO, signed: BinaryIO, identity: SigningIdentity, kind: str) -> None:
    software = {"name": "ATL-Diff", "version": __version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": DIGITAL_SOURCE_TYPE,
        "softwareAgent": software,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [created]}, "created": True}
    algorithm, chain, key = signing_material(identity)
    with (
        c2pa.Context.from_dict(_SETTINGS) as context,
        c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, key, None)) as signer,
        c2pa.Builder({"claim_generator_info": [software], "assertions": [actions]}, context=context) as builder,
    ):
        builder.sign(signer, kind, unsigned, signed)


def _read_manifest(stream: BinaryIO, kind: str, anchors: str) -> dict[str, Any] | None:
    """The manifest store with its validation, None where there is none."""
    stream.seek(0)
    settings = {**_SETTINGS, "trust": {"trust_anchors": anchors}} if anchors else _SETTINGS
    with c2pa.Context.from_dict(settings) as context:
        reader = c2pa.Reader.try_create(kind, stream, context=context)
        if reader is None:
            return None
        with reader:
            return _object(json.loads(reader.json()))


def _read_surely(stream: BinaryIO, kind: str, anchors: str) -> dict[str, Any] | None:
    """As :func:`_read_manifest`; of several boxes of media data the library takes the hashes in any order, and finds
    now and then that they do not fit. That they do cannot be found by chance, so it is asked again."""
    store = _read_manifest(stream, kind, anchors)
    for _ in range(_MOST_READINGS):
        codes = [fault["code"] for fault in _faults(store or {})]
        is_doubtful = bool(codes) and all(code.startswith("assertion.bmffHash") for code in codes)
        if not is_doubtful or sum(name == b"mdat" for name, _, _ in _boxes(stream)) < 2:
            break
        store = _read_manifest(stream, kind, anchors)
    return store


def _judge(store: dict[str, Any], stream: BinaryIO, comment: str | None) -> Provenance:
    manifests = _object(store.get("manifests"))
    active = _object(manifests.get(str(store.get("active_manifest"))))
    signature = _object(active.get("signature_info"))
    software = next(iter(_objects(active.get("claim_generator_info"))), {})
    source_types = [kind for manifest in manifests.values() for kind in _of_actions(manifest, "digitalSourceType")]
    synthetic = [kind for kind in source_types if kind.lower().endswith(_SYNTHETIC.lower())]
    faults = _faults(store)
    parts = [_part(fault["code"], active, stream) for fault in faults]
    unmarked = METADATA if comment else UNMARKED
    signer = signature.get("common_name") or signature.get("issuer")
    return Provenance(
        state=DAMAGED if faults else INTACT if synthetic else unmarked,
        damaged=tuple(dict.fromkeys(parts)),
        signer=None if signer is None else str(signer),
        trusted=store.get("validation_state") == "Trusted",
        software=" ".join(str(software[name]) for name in ("name", "version") if name in software) or None,
        source_type=(synthetic or source_types or [None])[0],
        made_at=next(iter(_of_actions(active, "when")), None),
        comment=comment,
        details=tuple(f"{fault['code']}: {fault['explanation']}" for fault in faults),
    )


def _object(value: Any) -> dict[str, Any]:
    """What a foreign manifest has in the place of an object."""
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects in what a foreign manifest has in the place of a list of them."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _faults(store: dict[str, Any]) -> list[dict[str, str]]:
    """What failed in the validation; that nobody vouches for the certificate is no damage."""
    results = _object(_object(store.get("validation_results")).get("activeManifest"))
    failures = [
        {name: str(fault.get(name, "")) for name in ("code", "explanation")}
        for fault in _objects(results.get("failure"))
    ]
    return [fault for fault in failures if fault["code"] != "signingCredential.untrusted"]


def _of_actions(manifest: Any, field: str) -> list[str]:
    """What the actions of a manifest say in ``field``."""
    actions = [
        action
        for assertion in _objects(_object(manifest).get("assertions"))
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in _objects(_object(assertion.get("data")).get("actions"))
    ]
    return [str(action[field]) for action in actions if field in action]


def _part(code: str, manifest: dict[str, Any], stream: BinaryIO) -> str:
    """The part of the file that a validation code (C2PA specification, section 15.2.2) speaks of."""
    if code.startswith(("assertion.bmffHash", "assertion.dataHash")):
        return INDEX if _media_data_fits(manifest, stream) else MEDIA_DATA
    if code.startswith(("claimSignature", "signingCredential", "timeStamp", "algorithm")):
        return SIGNATURE
    return STATEMENTS if code.startswith("assertion") else MANIFEST


def _media_data_fits(manifest: dict[str, Any], stream: BinaryIO) -> bool:
    """Whether the blocks of the media data are those that the manifest was made for: one tree of hashes a box."""
    data = {str(one.get("label")): _object(one.get("data")) for one in _objects(manifest.get("assertions"))}
    trees = _objects(data.get("c2pa.hash.bmff.v3", {}).get("merkle"))
    boxes = [(begin + _MDAT_UNHASHED_BYTES, end) for name, begin, end in _boxes(stream) if name == b"mdat"]
    if len(trees) != len(boxes) or not boxes:
        return False
    trees.sort(key=lambda tree: str(tree.get("localId")).zfill(9))
    return all(_tree_fits(tree, stream, *box) for tree, box in zip(trees, boxes, strict=True))


def _tree_fits(tree: dict[str, Any], stream: BinaryIO, begin: int, end: int) -> bool:
    expected, size = tree.get("hashes"), tree.get("fixedBlockSize")
    if tree.get("alg") != "sha256" or not isinstance(size, int) or not 0 < size <= _LARGEST_BLOCK:
        return False
    return expected == [list(digest) for digest in _block_digests(stream, begin, end, size)]


def _block_digests(stream: BinaryIO, begin: int, end: int, size: int) -> Iterator[bytes]:
    stream.seek(begin)
    while begin < end and (block := stream.read(min(size, end - begin))):
        begin += len(block)
        yield hashlib.sha256(block).digest()


def _has_manifest(stream: BinaryIO) -> bool:
    stream.seek(0)
    if (content := stream.read(_XMP_BYTES)).startswith(b"GIF"):
        return _GIF_MANIFEST in content
    for name, begin, _ in _boxes(stream):
        stream.seek(begin + 8)
        if name == b"uuid" and stream.read(16) == _MANIFEST_BOX:
            return True
    return False


def _boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of each box at the top of an mp4 (ISO/IEC 14496-12, section 4.2)."""
    total = stream.seek(0, 2)
    begin = 0
    while begin + 8 <= total:
        stream.seek(begin)
        header = stream.read(16)
        size = int.from_bytes(header[:4]) or total - begin
        if size == 1:
            size = int.from_bytes(header[8:16])
        if size < 8:
            return
        yield header[4:8], begin, begin + size
        begin += size


def _comment(path: Path) -> str | None:
    """The plain metadata that says "synthetic"; raises InputError where the file cannot be read as a video."""
    with open_media(path, _EXPECTED_FILE) as container:
        return next((field for field in container.metadata.values() if _SYNTHETIC.lower() in field.lower()), None)


def _no_comment(path: Path) -> str | None:
    """A GIF has no place for it."""


def _xmp(path: Path) -> str | None:
    """The digital source type in a JPEG's XMP data, where it is a synthetic one."""
    with path.open("rb") as stream:
        found = re.search(rb"https?://[\w./-]{0,200}" + _SYNTHETIC.encode(), stream.read(_XMP_BYTES), re.IGNORECASE)
    return None if found is None else found[0].decode("ascii", "replace")


def _readable(comment_of: Callable[[Path], str | None], path: Path) -> str | None:
    with contextlib.suppress(InputError):
        return comment_of(path)
    return None


def _anchors(path: Path) -> str:
    text = existing_file(path, "a PEM file of certificates").read_text(errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InputError(f"{path} holds no certificate; expected a PEM file of root certificates")
    return text
