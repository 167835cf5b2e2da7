"""C2PA manifests in PNG and JPEG files: made and signed, taken out again, and read.

A manifest says that a picture was made by a trained model and by which version of this program, and nothing of who is
in it, who ordered it and with which words. It binds every byte of the file but its own, and changes none of them: a
signed file is the unsigned one with a block put in. Its ids and salts are random, so whoever wants the same bytes twice
keeps the block (3 KB).
"""

import io
import json
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import studiolo
from studiolo.errors import StudioloError
from studiolo.provenance.ours import Ours

if TYPE_CHECKING:
    from studiolo.provenance.credentials import Credentials

_MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_MADE_IN_PART = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_APP11 = b"\xff\xeb"
_OFFSET = struct.Struct(">Q")
_SETTINGS: dict[str, Any] = {
    "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
"""A picture may name an address where its manifest lies: nothing is fetched from there."""


class ManifestState(StrEnum):
    """What is found of a manifest in a file."""

    NONE = "none"
    OURS = "ours"
    """Signed with one of our certificates, and the file is as it was then."""
    ALTERED = "altered"
    """It carries a certificate of ours, but file or manifest is not what was signed."""
    OTHER = "other"
    """Whole, and signed by somebody else."""
    BROKEN = "broken"
    """Neither whole nor ours."""


@dataclass(frozen=True)
class Stamp:
    """A signed manifest, and where in its file it goes."""

    at: int
    block: bytes

    def put_into(self, content: bytes) -> bytes:
        """The signed file of the unsigned `content` that the stamp was made for."""
        return content[: self.at] + self.block + content[self.at :]

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        return _OFFSET.pack(self.at) + self.block

    @classmethod
    def from_bytes(cls, kept: bytes) -> "Stamp":
        """The stamp that `to_bytes` wrote."""
        (at,) = _OFFSET.unpack_from(kept)
        return cls(at, kept[_OFFSET.size :])


class Signer:
    """Signs pictures, from any thread."""

    def __init__(self, credentials: "Credentials") -> None:
        self.credentials = credentials

    def stamp(self, content: bytes, composite: bool = False) -> Stamp:
        """A manifest for a PNG or JPEG file that has none; it says whether the model made all of the picture, or, of a
        `composite`, a part. Raises `StudioloError` when it cannot be signed.
        """
        import c2pa

        kind, given, signed = media_type(content), self.credentials, io.BytesIO()
        if kind is None:
            raise StudioloError(f"provenance: got a file that begins with {content[:8]!r}, wanted PNG or JPEG")
        info = (given.algorithm, given.chain_pem.encode(), given.key_pem.encode(), given.timestamp_url)
        try:
            with (
                c2pa.Context.from_dict(_SETTINGS) as context,
                c2pa.Signer.from_info(c2pa.C2paSignerInfo(*info)) as signer,
                c2pa.Builder(json.dumps(_claims(composite)), context) as builder,
            ):
                builder.sign(signer, kind, io.BytesIO(content), signed)
        except c2pa.C2paError as error:
            raise StudioloError(
                f"provenance: certificate {given.name} did not sign: {error}; check certificate, key and, where one is"
                " set, the timestamp authority"
            ) from None
        return _difference(content, signed.getvalue())

    def sign(self, content: bytes, composite: bool = False) -> bytes:
        """The file with a manifest in it. Raises as `stamp` does."""
        return self.stamp(content, composite).put_into(content)


def read_manifest(content: bytes, ours: Ours) -> ManifestState:
    """What manifest a file has.

    It parses what strangers send with native code: call it where that may die (`studiolo.provenance.looking`).
    """
    import c2pa

    kind = media_type(content)
    if kind is None:
        return ManifestState.NONE
    settings = _SETTINGS | {"trust": {"trust_anchors": ours.authorities_pem}}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(kind, io.BytesIO(content), context=context) as reader,
        ):
            state, found = reader.get_validation_state(), reader.get_validation_results() or {}
            signed = (reader.get_active_manifest() or {}).get("signature_info") or {}
    except c2pa.C2paError.ManifestNotFound:
        return ManifestState.NONE
    except c2pa.C2paError:
        return ManifestState.BROKEN
    codes = {item["code"] for item in found.get("activeManifest", {}).get("success", [])}
    if "signingCredential.trusted" in codes and signed.get("cert_serial_number") in ours.serials:
        return ManifestState.OURS if state == "Trusted" else ManifestState.ALTERED
    return ManifestState.OTHER if state in ("Trusted", "Valid") else ManifestState.BROKEN


def without_manifest(content: bytes) -> bytes:
    """A PNG or JPEG file without the manifests in it; any other bytes as they are."""
    if content.startswith(_PNG):
        return _without_chunks(content)
    return _without_segments(content) if content.startswith(_JPEG) else content


def media_type(content: bytes) -> str | None:
    """Of a file that can carry a manifest here."""
    if content.startswith(_PNG):
        return "image/png"
    return "image/jpeg" if content.startswith(_JPEG) else None


def _claims(composite: bool) -> dict[str, Any]:
    program = {"name": "Studiolo", "version": studiolo.__version__}
    made = {"action": "c2pa.created", "softwareAgent": program}
    made["digitalSourceType"] = _MADE_IN_PART if composite else _MADE_BY_A_MODEL
    return {
        "claim_generator_info": [program],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [made]}}],
    }


def _difference(content: bytes, signed: bytes) -> Stamp:
    """The one block that makes `signed` of `content`, the latter's bytes all being there."""
    bare = without_manifest(signed)
    at = next((place for place, (one, other) in enumerate(zip(content, signed, strict=False)) if one != other), 0)
    stamp = Stamp(at, signed[at : at + len(signed) - len(content)])
    if bare != content or stamp.put_into(content) != signed:
        raise StudioloError("provenance: signing changed more than a manifest would; the file carries one already")
    return stamp


def _without_chunks(content: bytes) -> bytes:
    kept, at = [content[: len(_PNG)]], len(_PNG)
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] != b"caBX":
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, content[at:]])


def _without_segments(content: bytes) -> bytes:
    kept, at = [content[: len(_JPEG)]], len(_JPEG)
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != b"\xff\xda":  # the scan: pixels from here on
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at : at + 2] != _APP11 or content[at + 4 : at + 6] != b"JP":
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, content[at:]])
