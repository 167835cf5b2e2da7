"""A release's card in Hugging Face's form: a head in YAML, then what there is, where it comes from and what it may not
be used for. Every number in it is one of `figures.release_figures`.

    releases/NAME/README.md          the card
    releases/NAME/card/figures.json  its numbers
    releases/NAME/card/*.png         its plots, and a sheet of samples with their masks drawn
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import yaml

from studiolo.datasets.captions.captioner import Row
from studiolo.datasets.figures import NOT_SURE, SURE_OF_GENDER, Figures, differences, release_figures
from studiolo.datasets.hub_features import hub_features
from studiolo.datasets.masks import painted, picture_and_mask
from studiolo.datasets.plots import PLOTS, png_of
from studiolo.datasets.records import DATA_SCHEMA, WHOLE, Drop
from studiolo.datasets.release_files import ReleaseFiles
from studiolo.portraits.sheets import SheetRow, Tile, contact_sheet
from studiolo.storage.store import Store

CARD = "README.md"
FIGURES = "card/figures.json"
SAMPLES = "card/samples.png"
SHOWN = 8
"""Pictures on the sheet of samples."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_HUB_LICENCES = frozenset(
    ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
)
_MEANING = {
    "image": "the face turned upright, cut out with its surroundings (JPEG)",
    "mask": "class ids of the same square (PNG): 1 skin, 2 brows, 3 eyes, 4 nose, 5 lips, 6 hair, 7 body, 0 all else",
    "parts": "the parts in the mask, each with box and area",
    "captions": "captions of the whole person and of each part, with the measurement behind each phrase",
    "mesh_px": "468 points of the face's mesh",
    "face_embedding": "of the identity; compared by Euclidean distance, and only within one `face_model`",
    "image_embedding": "of the picture",
    "attributes": "estimated age and probability of a woman's face",
    "identity": "SOURCE/LABEL where the source names the person, else the first seen of a cluster",
    "known": "whether the source names the person",
    "split": "by identity: nobody is in two",
    "weight": "how often to draw the row, by its source",
    "licence": "of the picture, else of its source",
}


def write_card(store: Store, name: str) -> Figures:
    """Write card, numbers, plots and sheet of the release; returns the numbers. The same release, the same bytes."""
    files = ReleaseFiles(store, name)
    figures = release_figures(files)
    for file, (_, plot) in PLOTS.items():
        store.write_bytes(files.place(f"card/{file}"), plot(figures))
    rows = list(files.rows_at(files.pick(SHOWN)))
    if rows:
        store.write_bytes(files.place(SAMPLES), sample_sheet(rows))
    store.write_json(files.place(FIGURES), figures)
    store.write_bytes(files.place(CARD), card_text(files, figures).encode())
    return figures


def check_card(store: Store, name: str) -> list[str]:
    """What is wrong with the card of a release, a sentence each: every number is counted again, and the text written
    again from them; empty when all holds.
    """
    files = ReleaseFiles(store, name)
    missing = [path for path in (CARD, FIGURES) if not store.exists(files.place(path))]
    if missing:
        return [f"{path} is not there" for path in missing]
    counted = release_figures(files)
    problems = differences(store.read_json(files.place(FIGURES)), counted)
    stated = store.read_bytes(files.place(CARD)).decode(errors="replace").splitlines()
    for number, (line, wanted) in enumerate(
        zip_longest(stated, card_text(files, counted).splitlines(), fillvalue=""), 1
    ):
        if line != wanted:
            problems.append(f"{CARD}, line {number}: the card says {line!r}, the tables {wanted!r}")
    return problems


def card_text(files: ReleaseFiles, figures: Figures) -> str:
    """The card. Pure, but for `files.record`."""
    head = yaml.safe_dump(card_head(files, figures), sort_keys=False, allow_unicode=True, width=120)
    sections = (_summary, _sources, _identities, _people, _parts, _left_out, _columns, _use)
    body = "\n\n".join(section(files, figures) for section in sections)
    return f"---\n{head}---\n\n# {_title(files)}\n\n{body}\n"


def card_head(files: ReleaseFiles, figures: Figures) -> dict[str, Any]:
    """The head: what `huggingface_hub.DatasetCardData` takes."""
    licences = list(figures["licences"])
    single = licences[0].lower() if len(licences) == 1 else ""
    licence: dict[str, Any] = {"license": single if single in _HUB_LICENCES else "other"}
    if licence["license"] == "other":
        licence |= {"license_name": "by-source", "license_link": "README.md#sources-and-licences"}
    splits = [split for split in figures["splits"] if figures["splits"][split]["rows"]]
    data = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    return {
        "pretty_name": _title(files),
        **licence,
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "task_categories": ["text-to-image", "image-segmentation", "image-to-text"],
        "size_categories": [next((name for limit, name in _SIZES if figures["rows"]["kept"] < limit), "n>1M")],
        "tags": ["faces", "identity", "masks", "captions"],
        "configs": [{"config_name": "default", "data_files": data}],
        "dataset_info": {"config_name": "default", "features": hub_features(DATA_SCHEMA)},
    }


def column_table() -> str:
    """The most important columns of a release and what each holds, as Markdown."""
    rows = [[f"`{name}`", _MEANING[name]] for name in DATA_SCHEMA.names if name in _MEANING]
    return _table(["column", "what it holds"], rows)


def sample_sheet(rows: Sequence[Row]) -> bytes:
    """Pictures, with their masks drawn below them, as PNG."""
    pairs = [(rgb_u8, painted(rgb_u8, mask)) for rgb_u8, mask in map(picture_and_mask, rows)]
    lines = [SheetRow("", [Tile(pictures[place]) for pictures in pairs]) for place in (0, 1)]
    return png_of(contact_sheet(lines, tile_px=160))


def _title(files: ReleaseFiles) -> str:
    return f"Faces, region by region: release {files.name}"


def _summary(files: ReleaseFiles, figures: Figures) -> str:
    rows, people = figures["rows"], figures["identities"]
    splits = ", ".join(f"{figures['splits'][split]['rows']:,} {split}" for split in figures["splits"])
    return (
        f"{_n(rows['kept'], 'face')} of {_n(people['all'], 'identity', 'identities')}, each with masks and boxes of "
        "its parts, embeddings of face and picture, estimated attributes, and captions of the whole person and of each "
        f"part. Splits: {splits}.\n\n"
        f"Of {_n(rows['listed'], 'picture')} that the sources list, {rows['dropped']:,} are left out, each with a "
        "reason in `decisions.parquet`.\n\n"
        f"![Pictures and their masks]({SAMPLES})\n\n"
        "```python\n"
        "import datasets\n"
        'rows = datasets.load_dataset("PATH_OR_REPOSITORY", split="train", streaming=True)\n'
        "```"
    )


def _sources(files: ReleaseFiles, figures: Figures) -> str:
    said = {source["name"]: source for source in files.record["sources"]}
    rows = [
        [
            _text(name),
            f"{source['listed']:,}",
            f"{source['kept']:,}",
            f"{said[name]['weight']:g}",
            _text(", ".join(source["licences"]) or "-"),
            said[name]["commercial_use"],
        ]
        for name, source in figures["sources"].items()
    ]
    return (
        "## Sources and licences\n\n"
        + _table(["source", "listed", "kept", "weight", "licences of kept rows", "commercial use"], rows)
        + "\n\nEach row says its own licence in `licence`. That of the strictest row governs a copy of the whole."
    )


def _identities(files: ReleaseFiles, figures: Figures) -> str:
    people = figures["identities"]
    rows = [[split, f"{one['rows']:,}", f"{one['identities']:,}"] for split, one in figures["splits"].items()]
    return (
        "## Identities and splits\n\n"
        f"{_n(people['known'], 'identity is', 'identities are')} named by a source, with "
        f"{_n(people['rows_of_known'], 'picture')}; {people['unknown']:,} are clusters of faces that nobody named, "
        f"never mixed with named ones. The largest has {_n(people['largest'], 'picture')}. Nobody is in two splits; "
        f"{_n(figures['circles_across_splits'], 'group')} that grew together across splits "
        f"{'is' if figures['circles_across_splits'] == 1 else 'are'} in train.\n\n"
        + _table(["split", "pictures", "identities"], rows)
        + f"\n\n{_image('identity-sizes.png')}"
    )


def _people(files: ReleaseFiles, figures: Figures) -> str:
    gender = figures["gender"]
    return (
        "## Who is shown\n\n"
        f"By the model's estimate {gender['woman']:,} women's and {gender['man']:,} men's faces, at a probability of "
        f"{SURE_OF_GENDER} or more, and {gender[NOT_SURE]:,} of which it is not sure. Ages and genders are estimates "
        "of a network and not what anybody has said of themselves.\n\n" + _image("age-gender.png")
    )


def _parts(files: ReleaseFiles, figures: Figures) -> str:
    rows = [[part, f"{one['rows']:,}", f"{one['share']:.1%}"] for part, one in figures["parts"].items()]
    captions = [
        ["whole person" if part == WHOLE else part, f"{one['rows']:,}", f"{one['words']:.1f}"]
        for part, one in figures["captions"].items()
    ]
    quartiles = figures["quality"]["quartiles"]
    quality = f"Quality, 0 to 1: quartiles {', '.join(f'{value:.3f}' for value in quartiles)}.\n\n" if quartiles else ""
    captioners = ", ".join(f"{_code(name)} ({count:,})" for name, count in figures["models"]["captioner"].items())
    return (
        "## Parts, captions, quality\n\n"
        + _table(["part", "pictures", "share"], rows)
        + f"\n\n{_image('parts.png')}\n\n"
        + f"Captions are by {captioners or 'nobody'}; {_n(figures['phrases_measured'], 'phrase')} of them "
        f"{'carries' if figures['phrases_measured'] == 1 else 'carry'} the measurement behind them.\n\n"
        + _table(["caption of", "pictures", "words on average"], captions)
        + f"\n\n{quality}{_image('quality.png')}"
    )


def _left_out(files: ReleaseFiles, figures: Figures) -> str:
    rows = [[_text(reason), f"{count:,}", _reason(reason)] for reason, count in figures["reasons"].items()]
    if not rows:
        return "## What is left out\n\nNothing."
    return "## What is left out\n\n" + _table(["reason", "pictures", "in words"], rows) + f"\n\n{_image('reasons.png')}"


def _columns(files: ReleaseFiles, figures: Figures) -> str:
    models = [_code(name) for kind in ("face_model", "image_model") for name in figures["models"][kind]]
    return (
        f"## Columns\n\n{_n(figures['files']['count'], 'Parquet file')} of {figures['files']['bytes'] / 1e6:,.1f} MB. "
        "The most important columns:\n\n" + column_table() + f"\n\nEmbeddings are of {', '.join(models) or 'no model'}."
    )


def _use(files: ReleaseFiles, figures: Figures) -> str:
    return (
        "## Use and limits\n\n"
        "Made for training and measuring models of portraits. Not made for recognising people, for deciding about "
        "them, or for telling their age, gender or origin. Masks of ears, neck and clothes are not told apart; "
        "captions say only what was measured surely enough, so that what they leave out may still be there.\n\n"
        "Whoever is shown can have their pictures taken out: `python -m jobs dataset erase URL --identity ID` rewrites "
        "what holds them."
    )


def _reason(reason: str) -> str:
    try:
        return Drop(reason).sentence()
    except ValueError:
        return ""


def _n(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _image(name: str) -> str:
    return f"![{PLOTS[name][0]}](card/{name})"


def _text(words: str) -> str:
    """`words` of a source as text of a Markdown cell: no markup, no new cell."""
    line = " ".join(str(words).split())
    for letter in "\\`*_[]|":
        line = line.replace(letter, f"\\{letter}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(words: str) -> str:
    return f"`{' '.join(str(words).split()).replace('`', '')}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
