"""Whether a picture was made here: by its manifest, or by its pixels.

Anybody with a key may ask about any picture, and is told that and nothing else: not for whom it was made, nor when, nor
of whom. Pixels are known as long as the result of their job is kept.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import IO

import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.provenance.looking import look
from studiolo.provenance.manifests import ManifestState, Signer
from studiolo.service.database import Database
from studiolo.service.tables import PixelsRow


class MadeBy(StrEnum):
    """How it is known that a picture was made here."""

    MANIFEST = "manifest"
    PIXELS = "pixels"


@dataclass(frozen=True)
class Verdict:
    """Whether a picture was made here."""

    by: MadeBy | None
    """None: it is not known that it was."""
    manifest: ManifestState

    def sentence(self) -> str:
        """The same for people."""
        found = _MANIFESTS[self.manifest]
        if self.by == MadeBy.MANIFEST:
            return found
        known = "Its pixels are those of a picture that was made here." if self.by else "Its pixels are not known here."
        return f"{found} {known}"


_MANIFESTS = {
    ManifestState.NONE: "It carries no manifest.",
    ManifestState.OURS: "It was made here and is as it was delivered: its manifest is signed by us.",
    ManifestState.ALTERED: "It carries a manifest of ours, but it is not the file that we signed.",
    ManifestState.OTHER: "Its manifest is signed by somebody else.",
    ManifestState.BROKEN: "Its manifest, or the file, is damaged.",
}


class Provenance:
    """Signs pictures, and remembers and recognises them."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self.database, self.signer = database, signer

    def sign(self, content: bytes, composite: bool = False) -> bytes:
        """A picture's file with a signed manifest in it, `composite` one of which a part is a template's. Raises
        `StudioloError`.
        """
        return self.signer.sign(content, composite)

    def remember(self, job_id: str, pixels_sha256: Iterable[str]) -> Callable[[Session], None]:
        """What `JobQueue.complete` does within its transaction: from then on these pictures are known."""
        rows = [{"sha256": sha256, "job_id": job_id} for sha256 in sorted(set(pixels_sha256))]

        def remember(session: Session) -> None:
            if rows:
                session.execute(sa.insert(PixelsRow), rows)

        return remember

    def known(self, pixels_sha256: str) -> bool:
        """Whether a picture with these pixels was made here, for whomever."""
        query = sa.select(PixelsRow.job_id).filter_by(sha256=pixels_sha256).limit(1)
        return self.database.read(lambda session: session.scalars(query).first() is not None)

    def judge(self, file: IO[bytes], max_pixels: int) -> Verdict:
        """About a file of this disk, read from where it stands; one with more pixels is known by its manifest alone.

        Raises `DatabaseError`, and nothing because of what the file holds.
        """
        seen = look(file, self.signer.credentials.ours, max_pixels)
        if seen.manifest == ManifestState.OURS:
            return Verdict(MadeBy.MANIFEST, seen.manifest)
        known = seen.pixels_sha256 is not None and self.known(seen.pixels_sha256)
        return Verdict(MadeBy.PIXELS if known else None, seen.manifest)
