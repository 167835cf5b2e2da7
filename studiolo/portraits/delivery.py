"""What a customer is handed: a folder or a zip with the portraits, the prints, a page and a letter.

    NAME/index.html            the portraits, on a page that links nothing outside
    NAME/order.txt             what was ordered, what fell short, and why
    NAME/portraits/STYLE-RANK.png
    NAME/prints/STYLE-RANK-4x5.jpg
    NAME/other-1/portraits, NAME/other-1/prints        of further people of the album

Portraits and prints carry a signed C2PA manifest there; in the job's output they have none. The manifests are kept in
the output, so that the same job gives the same bytes at every place, the zip's included: its entries are sorted, stored
and dated 1980. With another certificate they are signed anew.

What a delivery writes is first noted in the output, so that nothing else is ever written over or removed. Where such a
note is missing (an older delivery, or one of another output), a file counts as delivered when its content says so.
"""

import hashlib
import io
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studiolo.albums.records import Reason, Status
from studiolo.errors import UsageError
from studiolo.identities.artifacts import identity_folder, identity_order, part_of_album, safe_segment
from studiolo.portraits.approvals import Approvals, Decision
from studiolo.portraits.files import is_portrait
from studiolo.portraits.prints import is_print
from studiolo.portraits.templating import templates
from studiolo.portraits.views import shortfall
from studiolo.provenance.manifests import Signer, Stamp, without_manifest
from studiolo.storage.store import Store

Row = Mapping[str, Any]

NOTE = "deliveries.json"
"""In the folder of the album's owner: URL of each delivery folder -> paths in it that deliveries wrote."""
MANIFESTS = "manifests"
"""In the same folder: the manifest of each picture that was delivered."""

_DELIVERED = re.compile(r"index\.html|order\.txt|(?:other-[0-9]+/)?(?:portraits/[^/]+\.png|prints/[^/]+\.jpg)")
_LETTER = "Portraits for "
"""How letters and titles of pages begin, the template's too."""
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16


@dataclass(frozen=True)
class Delivery:
    """One customer's delivery before it is written."""

    album_id: str
    files: dict[str, str]
    """Name in the delivery -> path in the output."""
    composites: frozenset[str]
    """Paths in the output of those that were drawn into templates: a part of them was made by a model, not all."""
    texts: dict[str, str]
    """Name in the delivery -> its content."""
    short: tuple[str, ...]
    """Why less is in it than was ordered; empty when all is."""


def plan_delivery(
    order: Row,
    people: Sequence[Row],
    portraits: Sequence[Row],
    prints: Sequence[Row],
    approvals: Approvals,
    approved_only: bool,
) -> Delivery:
    """What goes to the customer of `order` (a row of `ORDERED_SCHEMA`).

    The other rows are those of this album, `people` its rows of `IDENTITY_SCHEMA`. Accepted portraits go, but for those
    the studio rejected; with `approved_only` those it approved.
    """
    people = sorted(people, key=lambda identity: identity_order(identity["identity_id"]))
    views = [_person(order, identity, portraits, prints, approvals, approved_only) for identity in people]
    files = {name: path for view in views for name, path in view["files"].items()}
    composites = frozenset(path for view in views for path in view["composites"])
    several = len(views) > 1
    short = [
        f"{view['name'] + ', ' if several else ''}{style['title']}: {line}"
        for view in views
        for style in view["styles"]
        for line in style["lacking"]
    ]
    view = {"name": order["album_id"], "people": views, "several": several, "prints": order["prints"]}
    view["printed"] = sorted(name for name in files if name.endswith(".jpg"))
    texts = {"index.html": _page(view), "order.txt": _letter(view)}
    return Delivery(order["album_id"], files, composites, texts, tuple(short))


def write_delivery(out: Store, to: Store, delivery: Delivery, zipped: bool, signer: Signer) -> None:
    """Make `to` hold the delivery, as a folder or a zip of the album's name; files that differ are written.

    Portraits and prints of an earlier delivery that are in this one no more go; so does the earlier one's other form.
    Raises `UsageError`, and writes nothing, when a file that no delivery wrote is in the way.
    """
    folder = safe_segment(delivery.album_id)
    contents = {name: text.encode(errors="replace") for name, text in delivery.texts.items()}
    contents |= {name: _signed(out, delivery, path, signer) for name, path in delivery.files.items()}
    files = {f"{folder}.zip": _zip(folder, contents)} if zipped else {f"{folder}/{n}": c for n, c in contents.items()}
    changed = [path for path, content in files.items() if not to.exists(path) or to.read_bytes(path) != content]
    known = set(delivered_files(out, to, delivery.album_id))
    for path in changed:
        if path not in known and to.exists(path):
            raise UsageError(
                f"deliver: {path!r} in {to.url!r} was there before and is no delivered file; move it away, or deliver"
                " to another folder"
            )
    _note(out, to, delivery.album_id, known | set(files))  # first: what is written must be known if this is killed
    for path in changed:
        to.write_bytes(path, files[path])
    for path in sorted(known - set(files)):
        to.remove(path)
    _note(out, to, delivery.album_id, set(files))


def _signed(out: Store, delivery: Delivery, path: str, signer: Signer) -> bytes:
    """The picture at `path` with its manifest: the one that it was given before, else a new one."""
    content = out.read_bytes(path)
    name = f"{hashlib.sha256(content).hexdigest()[:32]}-{signer.credentials.key()}"
    place = f"{identity_folder(delivery.album_id)}/{MANIFESTS}/{name}"
    if out.exists(place):
        stamp = Stamp.from_bytes(out.read_bytes(place))
    else:
        stamp = signer.stamp(content, path in delivery.composites)
        out.write_bytes(place, stamp.to_bytes())
    return stamp.put_into(content)


def delivered_files(out: Store, to: Store, album_id: str) -> list[str]:
    """Paths of what deliveries of this album left at `to`; other files beside them are not ours."""
    folder = safe_segment(album_id)
    archive = f"{folder}.zip"
    there = [*to.list(folder), *([archive] if to.exists(archive) else [])]
    notes = _notes(out, album_id)
    if to.url in notes:
        return sorted(set(there) & set(notes[to.url]))
    return [path for path in there if _reads_as_delivered(to, path, folder)]


def _notes(out: Store, album_id: str) -> dict[str, list[str]]:
    path = f"{identity_folder(album_id)}/{NOTE}"
    return dict(out.read_json(path)) if out.exists(path) else {}


def _note(out: Store, to: Store, album_id: str, paths: Collection[str]) -> None:
    notes = _notes(out, album_id)
    if notes.get(to.url) != sorted(paths):
        out.write_json(f"{identity_folder(album_id)}/{NOTE}", notes | {to.url: sorted(paths)})


def _reads_as_delivered(to: Store, path: str, folder: str) -> bool:
    """Whether name and content are those of a delivery's file, for want of a note."""
    name = path.removeprefix(f"{folder}/")
    if name != f"{folder}.zip" and not _DELIVERED.fullmatch(name):
        return False
    content = to.read_bytes(path)
    if name.endswith(".png"):
        return is_portrait(without_manifest(content))
    if name.endswith(".jpg"):
        return is_print(without_manifest(content))
    if name.endswith(".zip"):
        return _is_archive(content, folder)
    return content.startswith(_LETTER.encode()) if name == "order.txt" else f"<title>{_LETTER}".encode() in content


def _is_archive(content: bytes, folder: str) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    ours = all(name.startswith(f"{folder}/") and _DELIVERED.fullmatch(name[len(folder) + 1 :]) for name in names)
    return ours and f"{folder}/order.txt" in names


def _person(
    order: Row,
    identity: Row,
    portraits: Sequence[Row],
    prints: Sequence[Row],
    approvals: Approvals,
    approved_only: bool,
) -> dict[str, Any]:
    """What goes of one person: `files` and `composites`, as in `Delivery`, and what the page and the letter say."""
    fit = {Decision.APPROVE, Decision.MORE} | (set() if approved_only else {Decision.OPEN})
    name = identity["identity_id"]
    folder = f"{part_of_album(name)}/".removeprefix("/")
    files: dict[str, str] = {}
    composites: list[str] = []
    styles = []
    for item in order["styles"]:
        rows = [row for row in portraits if (row["identity_id"], row["style"]) == (name, item["style"])]
        accepted = sorted((row for row in rows if row["status"] == Status.OK), key=lambda row: row["rank"])
        going = [row for row in accepted if approvals.decision(row) in fit]
        lacking = _lacking(len(accepted), len(going), item["count"], rows, approved_only)
        names = [f"{folder}portraits/{_name(row)}.png" for row in going]
        printed, unprinted = _prints(going, prints)
        new = {file: row["path"] for file, row in zip(names, going, strict=True)}
        new |= {f"{folder}{file}": path for file, path in printed.items()}
        files |= new
        composites += new.values() if item["template"] else ()
        counts = {"wanted": item["count"], "going": len(going)}
        styles.append({"title": item["title"], **counts, "names": names, "lacking": lacking + unprinted})
    sentence = "" if identity["status"] == Status.OK else Reason(identity["reason"]).sentence()
    return {"name": name, "sentence": sentence, "styles": styles, "files": files, "composites": composites}


def _name(row: Row) -> str:
    return f"{safe_segment(row['style'])}-{row['rank']:02d}"


def _lacking(accepted: int, going: int, wanted: int, rows: Sequence[Row], approved_only: bool) -> list[str]:
    """Why fewer portraits go than were ordered, in sentences; none when enough go."""
    if going >= wanted:
        return []
    rejected = Counter(str(row["reason"]) for row in rows if row["status"] != Status.OK)
    lines = [shortfall(accepted, wanted, rejected)] if accepted < wanted else []
    if accepted > going:
        held = "not approved" if approved_only else "set aside"
        lines.append(
            f"{accepted - going} of the {accepted} accepted {'was' if accepted - going == 1 else 'were'} {held}"
        )
    return lines


def _prints(going: Sequence[Row], prints: Sequence[Row]) -> tuple[dict[str, str], list[str]]:
    """Names and paths of the prints of the portraits that go, and why others were not made."""
    names = {row["portrait_id"]: _name(row) for row in going}
    own = [row for row in prints if row["portrait_id"] in names]
    made = {
        f"prints/{names[row['portrait_id']]}-{row['print']}.jpg": row["path"]
        for row in own
        if row["status"] == Status.OK
    }
    failed = Counter((row["print"], row["reason"]) for row in own if row["status"] != Status.OK)
    return made, [
        f"{count} print{'' if count == 1 else 's'} {size}: {Reason(reason).sentence()}"
        for (size, reason), count in sorted(failed.items())
    ]


def _letter(view: Mapping[str, Any]) -> str:
    """The plain text file."""
    lines = [f"{_LETTER}{view['name']}", ""]
    for place, person in enumerate(view["people"]):
        if view["several"]:
            lines += [*([""] if place else []), person["name"]]
        if person["sentence"]:
            lines += [person["sentence"], ""]
        for item in person["styles"]:
            lines.append(f"{item['title']}: {item['wanted']} ordered, {item['going']} delivered")
            lines += [f"  {line}" for line in item["lacking"]]
    if view["prints"]:
        lines += ["", f"Prints {', '.join(view['prints'])}: {len(view['printed'])} files"]
    return "\n".join(lines) + "\n"


def _zip(folder: str, contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(f"{folder}/{name}", _FIRST_DAY)
            entry.create_system, entry.external_attr = 3, _MODE
            archive.writestr(entry, contents[name])
    return buffer.getvalue()


def _page(view: Mapping[str, Any]) -> str:
    return templates().get_template("delivery.html.j2").render(view)
