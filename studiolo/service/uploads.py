"""How much of an album is taken: counted while it streams in, before anything is kept or decoded."""

from studiolo.albums.decode import looks_like_an_image
from studiolo.albums.records import Reason
from studiolo.errors import TooLargeError, UnsupportedError
from studiolo.service.settings import UploadSettings

SNIFFED_BYTES = 16
"""Of a file's beginning: enough to tell what calls itself a picture from all else."""
_MIB = 2**20


class AlbumMeter:
    """Counts one album as it comes in; raises `TooLargeError` at the first byte too many."""

    def __init__(self, settings: UploadSettings | None = None) -> None:
        self.settings = settings or UploadSettings()
        self.photos = 0
        self.album_bytes = 0
        self.photo_bytes = 0

    def begin_photo(self) -> None:
        """Another photo begins."""
        self.photos += 1
        self.photo_bytes = 0
        self.expect(0)

    def expect(self, more: int) -> None:
        """So many more photos are to come."""
        if self.photos + more > self.settings.max_photos:
            sentence = f"More than {self.settings.max_photos} photos; send the best ones."
            raise TooLargeError("too_many_photos", sentence)

    def take(self, count: int) -> None:
        """`count` more bytes of the photo have come in."""
        self.photo_bytes += count
        self.album_bytes += count
        if self.photo_bytes > self.settings.max_photo_mib * _MIB:
            sentence = f"Photo {self.photos} has more than {self.settings.max_photo_mib:g} MiB."
            raise TooLargeError("photo_too_large", sentence)
        if self.album_bytes > self.settings.max_album_mib * _MIB:
            sentence = f"The album has more than {self.settings.max_album_mib:g} MiB."
            raise TooLargeError("album_too_large", sentence)


def check_photo(begins: bytes) -> None:
    """Raises `UnsupportedError` for a file that does not begin (`SNIFFED_BYTES` will do) like any picture we open.

    Nothing is decoded here. What a picture holds, and whether it has too many pixels, is found out where a decoder
    may die of it, and is the photo's verdict beside those of its album.
    """
    if not looks_like_an_image(begins):
        raise UnsupportedError("not_an_image", Reason.NOT_AN_IMAGE.sentence())
