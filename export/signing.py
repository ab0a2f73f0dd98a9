"""Who vouches for a bundle: an ed25519 signature over the bytes of bundle.json, which lists the hashes of the other files.

    bundle.json.sig      untrusted comment: ed25519 key 3f2a9c0d1e4b5a67
                         ‹base64 of the signature's 64 bytes›

As in minisign's files, the comment only helps to find the key and proves nothing. Keys are PEM, so OpenSSL can check too:

    tail -n 1 bundle.json.sig | base64 -d > raw.sig
    openssl pkeyutl -verify -pubin -inkey signing.pub -rawin -in bundle.json -sigfile raw.sig

A key's id is the beginning of the sha256 of its public half (DER). `cryptography` is imported only where a key is used.
"""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.errors import BundleError, FlowsentryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "ANYONE",
    "PRIVATE_KEY",
    "PUBLIC_KEY",
    "Signature",
    "Trust",
    "check_signature",
    "make_keys",
    "sign",
    "stamp_of_file",
]

PRIVATE_KEY = "signing.key"
PUBLIC_KEY = "signing.pub"

_FORM = re.compile(rb"untrusted comment: ed25519 key ([0-9a-f]{16})\n([A-Za-z0-9+/]{86}==)\n")
_PUBLIC_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_MAKE_ONE = "`python -m export keygen --out DIR` makes a pair"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: the public keys in a PEM file, several of them while one replaces another.

    The file is read anew for every bundle, so a running service learns of a new key.
    """

    keys: Path | None = None
    required: bool = False

    def stamp(self) -> tuple[int, ...] | None:
        """What changes when the file of keys does."""
        return None if self.keys is None else stamp_of_file(self.keys)


ANYONE: Final = Trust()
"""No signature is needed, and none is checked."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What is known of a bundle's signature. `key`: the id that it names, None where there is no signature; `trusted`:
    whether a trusted key really made it; `checked`: whether there were keys to check it with."""

    key: str | None = None
    trusted: bool = False
    checked: bool = False

    def __str__(self) -> str:
        if self.key is None:
            return "none"
        if self.trusted:
            return f"by trusted key {self.key}"
        why = "which is not trusted" if self.checked else "not checked: no trusted keys are given"
        return f"names key {self.key}, {why}"


def stamp_of_file(path: Path | str) -> tuple[int, ...] | None:
    """Inode, size and times of a file, None where there is none: what changes when the file does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def check_signature(content: bytes, signature: bytes | None, trust: Trust, path: Path) -> Signature:
    """Check the signature (the content of `path`, None where there is no such file) of a bundle.json's `content`.

    Raises:
        BundleError: it is no signature, it names a trusted key that did not make it, or one is required and missing.
        FlowsentryError: the file of trusted keys cannot be used.
    """
    trusted = {} if trust.keys is None else _public_keys(trust.keys)
    if trust.required and trust.keys is None:
        raise BundleError(
            f"{path}: a signature is required but no key is trusted: give the file of public keys (--trusted-keys, or "
            "stream.trusted_keys)"
        )
    if signature is None:
        if trust.required:
            raise BundleError(f"{path}: missing, and a signature is required: `python -m export sign` makes one")
        return Signature()
    match = _FORM.fullmatch(signature)
    if match is None:
        raise BundleError(f"{path}: not a signature: the file was changed, sign the bundle again")
    key, raw = match[1].decode(), base64.b64decode(match[2])
    if key in trusted:
        if not _made_by(trusted[key], raw, content):
            raise BundleError(f"{path}: not what key {key} signed: bundle.json was changed after it, sign it again")
        return Signature(key, trusted=True, checked=True)
    if trust.required:
        raise BundleError(
            f"{path}: names key {key}, which is not among those of {trust.keys} ({', '.join(trusted)}): "
            "sign the bundle with one of these, or add that key's public half to the file"
        )
    return Signature(key, checked=trust.keys is not None)


def make_keys(directory: Path, password: bytes | None = None) -> str:
    """Write a new pair, signing.key (for its owner's eyes alone) and signing.pub; the key's id.

    Raises:
        FileExistsError: there is a key already.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    locked = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    directory.mkdir(parents=True, exist_ok=True)
    for name, mode, content in ((PRIVATE_KEY, 0o600, private), (PUBLIC_KEY, 0o644, public)):
        with os.fdopen(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    return _key_id(key.public_key())


def sign(content: bytes, key_file: Path, password: bytes | None = None) -> bytes:
    """What belongs into bundle.json.sig for a bundle.json's `content`.

    Raises:
        FlowsentryError: the file is no ed25519 private key, or the password does not open it.
    """
    key = _private_key(key_file, password)
    return b"untrusted comment: ed25519 key %s\n%s\n" % (
        _key_id(key.public_key()).encode(),
        base64.b64encode(key.sign(content)),
    )


def _private_key(path: Path, password: bytes | None) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password)
    except TypeError:  # one of the two is there without the other
        has = "has no password, but one was given" if password else "has a password: give it with --password-file"
        raise FlowsentryError(f"{path}: {has}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise FlowsentryError(f"{path}: no private key in PEM form, or not its password; {_MAKE_ONE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FlowsentryError(f"{path}: not an ed25519 key; {_MAKE_ONE}")
    return key


def _public_keys(path: Path) -> dict[str, "Ed25519PublicKey"]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        content = path.read_bytes()
    except OSError as error:
        raise FlowsentryError(f"{path}: trusted keys: {error.strerror}") from None
    if b"PRIVATE KEY-----" in content:
        raise FlowsentryError(f"{path}: trusted keys: holds a private key: only {PUBLIC_KEY} belongs there")
    keys = {}
    for pem in _PUBLIC_PEM.findall(content):
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise FlowsentryError(f"{path}: trusted keys: a damaged public key; {_MAKE_ONE}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise FlowsentryError(f"{path}: trusted keys: one is not an ed25519 key; {_MAKE_ONE}")
        keys[_key_id(key)] = key
    if not keys:
        raise FlowsentryError(f"{path}: trusted keys: no public key in PEM form; {_MAKE_ONE}")
    return keys


def _made_by(key: "Ed25519PublicKey", signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _key_id(key: "Ed25519PublicKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]
