"""A release in the forms that others read: ConsistentID's JSON with its folders, and WebDataset's tars.

    releases/NAME/consistentid/JSON_all.json
    releases/NAME/consistentid/FOLDER/SPLIT/AB/ROW.*        the files that it names, relative to their folders
    releases/NAME/webdataset/SPLIT-00000.tar

The same release gives the same bytes.
"""

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.datasets.captions.markers import MARKER, training_text
from studiolo.datasets.masks import picture_and_mask
from studiolo.datasets.records import WHOLE, Split
from studiolo.datasets.release_files import ReleaseFiles, Row, caption_of
from studiolo.perception.regions import Region
from studiolo.storage.store import Store

CONSISTENTID, WEBDATASET = "consistentid", "webdataset"
LISTING = f"{CONSISTENTID}/JSON_all.json"
FOLDERS = ("origin_IMG", "resize_IMG", "parsing_color_IMG", "parsing_mask_IMG", "all_faceID")
RESIZED_PX = 512

_MIDDLE = (133, 362)  # inner corners of the eyes
_UPPER_AND_LOWER = (13, 14)  # where the lips meet

# Class ids of the BiSeNet that the published masks come from, by the part's side in the picture.
_PARSING = {Region.SKIN: 1, Region.NOSE: 10, Region.HAIR: 17, Region.BODY: 16}
_PARSING_LEFT = {Region.BROWS: 2, Region.EYES: 4}
_PARSING_RIGHT = {Region.BROWS: 3, Region.EYES: 5}
_PARSING_UPPER_LIP, _PARSING_LOWER_LIP = 12, 13
_PARSING_COLOURS = {
    **{0: (255, 255, 255), 1: (255, 85, 0), 2: (255, 170, 0), 3: (255, 0, 85), 4: (255, 0, 170), 5: (0, 255, 0)},
    **{10: (0, 0, 255), 12: (170, 0, 255), 13: (0, 85, 255), 16: (255, 255, 85), 17: (255, 255, 170)},
}


def details_of(row: Row) -> list[str]:
    """The captions of a row's parts, in their order."""
    return [caption["text"] for caption in row["captions"] or () if caption["part"] != WHOLE]


def write_consistentid(store: Store, name: str) -> int:
    """Write the release as ConsistentID publishes its data; returns the number of rows.

    The keys are the published ones; captions are plain, since the published training puts in its markers itself. The
    picture of the release stands for the original, and both embedding files are one: the embedding of the face in the
    source's photo, with as many numbers as its model gives.
    """
    files, count = ReleaseFiles(store, name), 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "JSON_all.json"
        with copy.open("w", encoding="utf-8") as listing:
            listing.write("[")
            for _, row in files.rows(None):
                entry, contents = consistentid_row(row)
                for path, content in contents.items():
                    store.write_bytes(files.place(f"{CONSISTENTID}/{path}"), content)
                listing.write(",\n" if count else "\n")
                listing.write(json.dumps(entry, ensure_ascii=False))
                count += 1
            listing.write("\n]\n")
        store.write_file(files.place(LISTING), copy)
    return count


def consistentid_row(row: Row) -> tuple[dict[str, str], dict[str, bytes]]:
    """The JSON of a row, and its files by path below `consistentid/`."""
    stem = f"{row['split']}/{row['row_id'][:2]}/{row['row_id']}"
    suffix = "jpg" if row["image"]["bytes"].startswith(b"\xff\xd8") else "png"
    entry = {
        "origin_IMG": f"{stem}.{suffix}",
        "resize_IMG": f"{stem}_resize.png",
        "parsing_color_IMG": f"{stem}_color.png",
        "parsing_mask_IMG": f"{stem}_mask.png",
        "vqa_llva": caption_of(row, WHOLE),
        "vqa_llva_more_face_detail": " ".join(details_of(row)),
        "id_embed_file_resize": f"{stem}_faceid.bin",
        "id_embed_file_origin": f"{stem}_faceid.bin",
    }
    rgb_u8, _ = picture_and_mask(row)
    size = (RESIZED_PX, RESIZED_PX)
    resized_u8 = np.asarray(Image.fromarray(rgb_u8).resize(size, Image.Resampling.BILINEAR))
    parsing_u8 = cv2.resize(parsing_mask(row), size, interpolation=cv2.INTER_NEAREST)
    contents = (
        row["image"]["bytes"],
        _png(resized_u8),
        _png(_parsing_picture(resized_u8, parsing_u8)),
        _png(parsing_u8),
        _embedding(row["face_embedding"]),
    )
    places = (*(entry[name] for name in FOLDERS[:-1]), entry["id_embed_file_origin"])
    return entry, {f"{folder}/{place}": one for folder, place, one in zip(FOLDERS, places, contents, strict=True)}


def parsing_mask(row: Row) -> NDArray[np.uint8]:
    """A row's mask [side, side] in the class ids of the published masks.

    Eyes and brows are told apart by the middle of the face, lips by the line where they meet; the open mouth between
    them counts as the nearer lip.
    """
    _, regions = picture_and_mask(row)
    points = np.asarray(row["mesh_px"], np.float64).reshape(468, 2)
    y, x = np.mgrid[: regions.shape[0], : regions.shape[1]]
    right, lower = x > points[list(_MIDDLE), 0].mean(), y > points[list(_UPPER_AND_LOWER), 1].mean()
    parsing = np.zeros_like(regions)
    for region, value in _PARSING.items():
        parsing[regions == region] = value
    for region in _PARSING_LEFT:
        both = np.where(right, _PARSING_RIGHT[region], _PARSING_LEFT[region])
        parsing[regions == region] = both[regions == region]
    lips = np.where(lower, _PARSING_LOWER_LIP, _PARSING_UPPER_LIP)
    parsing[regions == Region.LIPS] = lips[regions == Region.LIPS]
    return parsing


def write_webdataset(store: Store, name: str, rows_per_tar: int = 1000) -> list[str]:
    """Write the release as tars; returns their paths in the output.

    Of each row: `ROW.jpg` (or png) the picture, `ROW.mask.png` class ids, `ROW.txt` the paper's training text with its
    markers, `ROW.face.npy` and `ROW.image.npy` the embeddings, `ROW.json` all the rest and the parts that the markers
    stand for, in order.
    """
    files, paths = ReleaseFiles(store, name), list[str]()
    for split in Split:
        rows = (row for _, row in files.rows(None, split.value))
        for number, some in enumerate(_portions(rows, rows_per_tar)):
            paths.append(files.place(f"{WEBDATASET}/{split.value}-{number:05d}.tar"))
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "rows.tar"
                with copy.open("wb") as file:
                    write_tar(file, (member for row in some for member in webdataset_members(row)))
                store.write_file(paths[-1], copy)
    return paths


def webdataset_members(row: Row) -> list[tuple[str, bytes]]:
    """Names and contents of a row's members, in a fixed order."""
    text = training_text(caption_of(row, WHOLE), details_of(row))
    suffix = "jpg" if row["image"]["bytes"].startswith(b"\xff\xd8") else "png"
    apart = ("image", "mask", "face_embedding", "image_embedding")
    rest = {name: value for name, value in row.items() if name not in apart}
    rest |= {"marker": MARKER, "marked_regions": list(text.regions), "marked_words": list(text.words)}
    members = {
        suffix: row["image"]["bytes"],
        "mask.png": row["mask"]["bytes"],
        "txt": text.text.encode(),
        "json": json.dumps(rest, ensure_ascii=False, sort_keys=True).encode(),
        "face.npy": _npy(row["face_embedding"]),
        "image.npy": _npy(row["image_embedding"]),
    }
    return [(f"{row['row_id']}.{suffix}", content) for suffix, content in members.items()]


def write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar whose bytes depend on names and contents only: no owner, no time, one format."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def _portions(rows: Iterator[Row], size: int) -> Iterator[Iterator[Row]]:
    """Runs of up to `size` rows, one row in memory at a time; each has to be read before the next."""
    for first in rows:

        def some(first: Row = first) -> Iterator[Row]:
            yield first
            for _, row in zip(range(size - 1), rows, strict=False):
                yield row

        yield some()


def _parsing_picture(rgb_u8: NDArray[np.uint8], parsing_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask's colours at 0.6 over the picture, as the published pictures are."""
    colours = np.full((256, 3), 255, np.float32)
    for value, colour in _PARSING_COLOURS.items():
        colours[value] = colour
    return np.rint(0.4 * rgb_u8 + 0.6 * colours[parsing_u8]).astype(np.uint8)


def _embedding(numbers: Any) -> bytes:
    """A tensor [1, D] as `torch.load` reads it."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.tensor([list(numbers)], dtype=torch.float32), buffer)
    return buffer.getvalue()


def _npy(numbers: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(numbers, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
