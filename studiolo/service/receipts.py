"""Receipts of erasures: JSON signed with a named Ed25519 key, which is made at its first use."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from studiolo.errors import SettingsError
from studiolo.keys import canonical_json
from studiolo.storage.private_files import write_once


class ReceiptKey:
    """The key in a PEM file that only its owner reads. All replicas of a service need the same file."""

    def __init__(self, private: Ed25519PrivateKey, label: str) -> None:
        self._private = private
        self.public_pem = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.name = _name(private.public_key(), label)
        """The file's name and the beginning of the public half's sha256: a key that was replaced has another name."""

    @classmethod
    def open(cls, path: Path) -> "ReceiptKey":
        """The key in `path`, made when there is none. Raises `SettingsError` for a file that holds another thing."""
        if not path.exists():
            _make(path)
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"receipt key {path}: {error}; wanted an unencrypted Ed25519 key in PEM") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise SettingsError(f"receipt key {path}: got another kind of key, wanted Ed25519")
        return cls(private, path.stem)

    def sign(self, body: dict[str, Any]) -> dict[str, Any]:
        """The receipt that says `body`."""
        content = {"key": self.name, **body}
        return content | {"signature": base64.b64encode(self._private.sign(_signed_bytes(content))).decode()}


def verify_receipt(receipt: dict[str, Any], public_pem: bytes) -> bool:
    """Whether every word of the receipt is signed with the private half of the PEM's key."""
    public = serialization.load_pem_public_key(public_pem)
    content = {name: value for name, value in receipt.items() if name != "signature"}
    if not isinstance(public, Ed25519PublicKey):
        return False
    try:
        public.verify(base64.b64decode(receipt["signature"], validate=True), _signed_bytes(content))
    except (InvalidSignature, KeyError, ValueError, TypeError):
        return False
    return True


def _signed_bytes(content: dict[str, Any]) -> bytes:
    return canonical_json(content).encode()


def _name(public: Ed25519PublicKey, label: str) -> str:
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"{label}-{hashlib.sha256(raw).hexdigest()[:16]}"


def _make(path: Path) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        write_once(path, Ed25519PrivateKey.generate().private_bytes(*form))
    except OSError as error:
        raise SettingsError(f"receipt key {path}: cannot be made: {error.strerror}; check its folder") from None
