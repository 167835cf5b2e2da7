"""A release's metadata in Croissant's form (MLCommons, 1.0): its files with their hashes, and what each column is.

Without the recommended date of publication: times stay out of what is the same for the same release.

releases/NAME/croissant.json
"""

from typing import Any

import pyarrow as pa

import studiolo
from studiolo.datasets.card import card_head
from studiolo.datasets.figures import Figures
from studiolo.datasets.records import DATA_SCHEMA
from studiolo.datasets.release_files import ReleaseFiles
from studiolo.storage.store import Store

CROISSANT = "croissant.json"
RECORD_SET = "rows"

_VOCABULARY = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that Croissant 1.0 prescribes."""

_TYPES: dict[Any, str] = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int32(): "sc:Integer",
    pa.float32(): "sc:Float",
}
"""Columns of one value each. Lists (captions, parts, points, embeddings) are described on the card in words."""

_PICTURES = {"image": "sc:ImageObject", "mask": "sc:ImageObject"}

_DESCRIPTIONS = {
    "image": "the face turned upright, cut out with its surroundings",
    "mask": "class ids: 1 skin, 2 brows, 3 eyes, 4 nose, 5 lips, 6 hair, 7 body, 0 all else",
    "row_id": "sha256 over source and place in it",
    "source": "name of the source",
    "uri": "place in the source",
    "label": "the identity that the source names",
    "licence": "of the row's source",
    "identity": "SOURCE/LABEL where the source names the person, else the first seen of a cluster",
    "known": "whether the source names the person",
    "split": "train, validation or test, by identity",
    "weight": "how often to draw the row",
    "captioner": "who wrote the captions",
    "phash": "perceptual hash of the whole picture",
    "unsafe_score": "0 safe, 1 not",
    "content_sha256": "of the source's file",
}


def write_croissant(store: Store, name: str, figures: Figures) -> None:
    """Write the metadata of the release, whose numbers (`figures.release_figures`) are there."""
    files = ReleaseFiles(store, name)
    store.write_json(files.place(CROISSANT), croissant(files, figures))


def croissant(files: ReleaseFiles, figures: Figures) -> dict[str, Any]:
    """The metadata, a JSON-LD value; paths in it are from the release's folder."""
    head = card_head(files, figures)
    rows = figures["rows"]
    return {
        "@context": _VOCABULARY,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"faces-{files.name}",
        "description": (
            f"{head['pretty_name']}. {rows['kept']} faces with region masks, embeddings, attributes and captions, of "
            f"{rows['listed']} pictures."
        ),
        "version": studiolo.__version__,
        "citeAs": f"{head['pretty_name']}, made with Studiolo {studiolo.__version__}, after ConsistentID's FGID",
        "license": list(figures["licences"]) or ["unknown"],
        "keywords": head["tags"],
        "url": "README.md",
        "isLiveDataset": False,
        "rai:dataCollection": "Pictures of the sources named in `source`, annotated by models.",
        "rai:personalSensitiveInformation": "Faces, estimated age and gender, and embeddings that tell people apart.",
        "rai:dataUseCases": "Training and measuring models of portraits; not recognising or judging people.",
        "distribution": [*_files(files), _file_set()],
        "recordSet": [_record_set()],
    }


def _files(files: ReleaseFiles) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": file["path"],
            "name": file["path"],
            "description": f"{file['rows']} rows of {file['split']}",
            "contentUrl": file["path"],
            "contentSize": f"{file['size_bytes']} B",
            "encodingFormat": "application/x-parquet",
            "sha256": file["sha256"],
        }
        for file in files.data_files()
    ]


def _file_set() -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": "data",
        "name": "data",
        "description": "The rows, in files by split.",
        "encodingFormat": "application/x-parquet",
        "includes": "data/*.parquet",
    }


def _record_set() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": RECORD_SET,
        "name": RECORD_SET,
        "description": "One face a row.",
        "key": {"@id": f"{RECORD_SET}/row_id"},
        "field": [field for column in DATA_SCHEMA for field in _fields(column)],
    }


def _fields(column: pa.Field) -> list[dict[str, Any]]:
    """A column's field; one for each part of a structure; none for a list."""
    name, kind = column.name, column.type
    if name in _PICTURES:
        return [_field(name, _PICTURES[name], column=name, inner="bytes")]
    if kind in _TYPES:
        return [_field(name, _TYPES[kind], column=name)]
    if not pa.types.is_struct(kind):
        return []
    return [_field(f"{name}.{part.name}", _TYPES[part.type], column=name, inner=part.name) for part in kind]


def _field(name: str, kind: str, column: str, inner: str = "") -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "data"}, "extract": {"column": column}}
    if inner:
        source["transform"] = {"jsonPath": inner}
    return {
        "@type": "cr:Field",
        "@id": f"{RECORD_SET}/{name}",
        "name": name,
        "description": _DESCRIPTIONS.get(name, name.replace("_", " ")),
        "dataType": kind,
        "source": source,
    }
