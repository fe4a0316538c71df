"""Who signs: a certificate and its key, the caller's own or a self-signed pair that is made once for each user."""

import datetime
import os
import secrets
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from atldiff.errors import InputError, OutputError
from atldiff.media.files import existing_file

CERTIFICATE_VARIABLE, KEY_VARIABLE = "ATLDIFF_SIGN_CERT", "ATLDIFF_SIGN_KEY"
CERTIFICATE_NAME, KEY_NAME = "certificate.pem", "key.pem"

_CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
"""The extended key usage "C2PA claim signing"; older readers ask for e-mail protection in its place."""

_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
"""Clocks run ahead and behind: whenever a certificate was made, it is valid from the start."""

_NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""No well-defined end (RFC 5280, section 4.1.2.5): without a timestamp the end of a certificate voids its marks."""

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class SigningIdentity:
    """Two PEM files: ``certificate``, the chain with the signer's own first, and ``key``, not encrypted."""

    certificate: Path
    key: Path


def default_identity() -> SigningIdentity:
    """The pair that the environment names, otherwise the user's own, which is made at the first call.

    Raises:
        InputError: the environment names only one of the two.
        OutputError: the user's own pair cannot be made.
    """
    certificate, key = os.environ.get(CERTIFICATE_VARIABLE), os.environ.get(KEY_VARIABLE)
    return chosen_identity(certificate, key) or own_identity()


def chosen_identity(certificate: str | Path | None, key: str | Path | None) -> SigningIdentity | None:
    """The pair that was named, None where nothing was.

    Raises:
        InputError: only one of the two was named.
    """
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise InputError(f"got only the {'certificate' if certificate else 'key'} to sign with; expected both")
    return SigningIdentity(Path(certificate), Path(key))


def own_identity() -> SigningIdentity:
    """The user's self-signed pair in :func:`signing_folder`; nobody but the user may read it.

    A pair that is not valid yet, of a clock that ran ahead, is put aside for a new one.

    Raises:
        OutputError: it cannot be made.
    """
    folder = signing_folder()
    try:
        if folder.is_dir() and _is_not_valid_yet(folder / CERTIFICATE_NAME):
            folder.rename(folder.with_name(f"{folder.name}-{secrets.token_hex(4)}"))
        if not folder.is_dir():
            make_pair(folder)
    except OSError as error:
        raise OutputError(
            f"cannot make a signing key in {folder}: {error.strerror}; expected a writable folder, or a certificate "
            f"and a key named by {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}"
        ) from error
    return SigningIdentity(folder / CERTIFICATE_NAME, folder / KEY_NAME)


def _is_not_valid_yet(certificate: Path) -> bool:
    try:
        own = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return False  # what is wrong with it is said where it is used
    return own.not_valid_before_utc > datetime.datetime.now(datetime.UTC)


def known_certificate() -> Path | None:
    """The certificate of :func:`default_identity` if there is one yet; makes none."""
    path = Path(os.environ.get(CERTIFICATE_VARIABLE) or signing_folder() / CERTIFICATE_NAME)
    return path if path.is_file() else None


def signing_folder() -> Path:
    """Where the platform keeps a user's settings; raises OutputError for a user without a home."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("APPDATA") or Path.home() / "AppData/Roaming")
        elif sys.platform == "darwin":
            base = Path.home() / "Library/Application Support"
        else:
            base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError as error:
        raise OutputError(f"no place for a signing key: {error}; set XDG_CONFIG_HOME") from error
    return base / "atldiff" / "signing"


def signing_material(identity: SigningIdentity) -> tuple[str, bytes, bytes]:
    """The C2PA name of the algorithm, the chain and the key (PKCS #8) as PEM.

    Raises:
        InputError: a file is missing, unreadable, encrypted or of an unknown kind, or the two do not belong together.
    """
    certificate = existing_file(identity.certificate, "a PEM file of certificates")
    key_file = existing_file(identity.key, "a PEM file with a private key")
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except (ValueError, OSError) as error:
        raise InputError(f"{certificate} holds no certificate; expected a PEM file") from error
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, OSError) as error:
        raise InputError(f"{key_file} holds no private key ({error}); expected PEM without a password") from error
    if key.public_key() != chain[0].public_key():
        raise InputError(f"{key_file} does not belong to the first certificate of {certificate}; expected its key")
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    return _algorithm(key, key_file), pem, _pem(key)


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise InputError(f"{path} holds a {type(key).__name__}; expected Ed25519, NIST P-256, P-384 or P-521, or RSA")


def make_pair(folder: Path) -> None:
    """Write a new self-signed pair into a new folder; of processes that do so at once, one wins.

    It is a chain of two, for C2PA allows no end certificate that signs itself; the root's key is not kept.
    """
    root_key, key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    name = f"ATL-Diff self-signed {secrets.token_hex(4)}"
    root = _certificate(f"{name} root", f"{name} root", root_key.public_key(), root_key, is_root=True)
    own = _certificate(name, f"{name} root", key.public_key(), root_key, is_root=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        (made / CERTIFICATE_NAME).write_bytes(own + root)
        with os.fdopen(os.open(made / KEY_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(_pem(key))
        made.rename(folder)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        if not folder.is_dir():  # otherwise another process was quicker
            raise


def _certificate(
    subject: str, issuer: str, public: ed25519.Ed25519PublicKey, signer: ed25519.Ed25519PrivateKey, is_root: bool
) -> bytes:
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EVER)
        .not_valid_after(_NEVER)
        .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_root:
        purposes = x509.ExtendedKeyUsage([_CLAIM_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(signer, None).public_bytes(serialization.Encoding.PEM)


def _name(common: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ATL-Diff, self-signed")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
