"""How identities are called, where their things lie below the output, and names that are safe as one path segment."""

import hashlib
import re
import unicodedata

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for."""

_MAX_BYTES = 80
_HASH_DIGITS = 20
_UNSAFE = re.compile(r"[^a-z0-9_-]+")
_SAFE = re.compile(r"[a-z0-9_][a-z0-9._-]*")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_HASHED = re.compile(rf".*-[0-9a-f]{{{_HASH_DIGITS}}}")
_OTHER = re.compile(r"(.+)/other-[1-9][0-9]*", re.DOTALL)


def identity_name(album_id: str, person: int) -> str:
    """What person 0, 1, 2 ... of an album is called: the owner as the album, the others `ALBUM/other-1` and so on.

    No album has such a name: those of folders hold no `/`, and a manifest that has one is refused.
    """
    return f"{album_id}/other-{person}" if person else album_id


def album_of(identity_id: str) -> str:
    """The album whose person this is."""
    other = _OTHER.fullmatch(identity_id)
    return other[1] if other else identity_id


def part_of_album(identity_id: str) -> str:
    """Path of a person among the others of the album: empty for the owner, else `/other-1` and so on."""
    return identity_id[len(album_of(identity_id)) :]


def identity_order(identity_id: str) -> tuple[str, int]:
    """Key that sorts people for a reader: by album, its owner first, then `other-1`, `other-2`, ... `other-10`."""
    return album_of(identity_id), int(part_of_album(identity_id).rpartition("-")[2] or 0)


def safe_segment(name: str) -> str:
    """`name` as one path segment that is safe on disks, object stores and in URLs, and unlike any other
    name's.

    A name of a-z, 0-9, `.`, `_` and `-` that starts with neither `.` nor `-` stays as it is. Any other is
    reduced to these and ends in `-` and 20 hex digits of its sha256; so do names that already look like that,
    names with capitals (some disks ignore case), too long ones, and those that Windows reserves.
    """
    plain = _SAFE.fullmatch(name) and len(name) <= _MAX_BYTES and not name.endswith(".")
    if plain and not _RESERVED.fullmatch(name) and not _HASHED.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = _UNSAFE.sub("-", ascii_name).strip("-_")[: _MAX_BYTES - _HASH_DIGITS - 1].rstrip("-_")
    return f"{stem or 'x'}-{digest}"


def identity_folder(identity_id: str) -> str:
    """Folder of everything kept for an identity, relative to the output; the owner's holds those of the others."""
    return f"identities/{safe_segment(album_of(identity_id))}{part_of_album(identity_id)}"


def lora_folder(identity_id: str, version: str = "") -> str:
    """Folder of the face-LoRA, as `load_lora_weights` takes it, relative to the output; `version` is the sha256 of the
    weights where earlier ones stay beside it.
    """
    return f"{identity_folder(identity_id)}/lora" + (f"/{version[:_HASH_DIGITS]}" if version else "")


def lora_path(identity_id: str, version: str = "") -> str:
    """The face-LoRA's weights, relative to the output."""
    return f"{lora_folder(identity_id, version)}/{LORA_FILE}"


def kohya_path(identity_id: str, version: str = "") -> str:
    """The same in the format of kohya's trainer, where it is asked for, relative to the output."""
    return f"{lora_folder(identity_id, version)}/kohya.safetensors"


def checkpoint_path(identity_id: str) -> str:
    """Where the identity's unfinished training stands, relative to the output; gone once it is done."""
    return f"{identity_folder(identity_id)}/training.checkpoint"


def crop_path(identity_id: str, photo_id: str) -> str:
    """PNG of a reference's crop, relative to the output."""
    return f"{identity_folder(identity_id)}/references/{photo_id[:24]}.png"


def mask_path(identity_id: str, photo_id: str) -> str:
    """PNG of a reference's region class ids, relative to the output."""
    return f"{identity_folder(identity_id)}/references/{photo_id[:24]}.mask.png"
