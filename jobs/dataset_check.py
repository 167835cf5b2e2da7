"""What can be wrong with a request to the dataset job, found before any work."""

from studiolo.datasets.annotate import cards_of
from studiolo.datasets.captions import open_captioner
from studiolo.datasets.optout import OptOut
from studiolo.datasets.settings import DatasetSettings
from studiolo.datasets.sources.listed import base_of, is_glob
from studiolo.errors import SettingsError, nearest
from studiolo.perception.suite import PERCEPTION_CARDS
from studiolo.storage.places import overlap
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from studiolo.training.synthesis import CARD as FACES_CARD
from studiolo.weights.fetch import pull


def check_request(settings: DatasetSettings) -> OptOut:
    """What may not be used; raises `UsageError` for a request that cannot be carried out. Fetches the weights."""
    for source in settings.sources:
        folder = base_of(source.place) if is_glob(source.place) else source.place
        if source.kind != "synthetic" and overlap(folder, settings.out):
            raise SettingsError(
                f"out: got {settings.out!r}, and source {source.name!r} is {source.place!r}; wanted two places of which"
                " neither lies in the other"
            )
    if settings.suite not in PERCEPTION_CARDS:
        raise SettingsError(
            f"suite {settings.suite!r} has no perception yet; {nearest(settings.suite, PERCEPTION_CARDS)}"
        )
    open_captioner(settings.captioner, settings.captions)
    store = Store(settings.out)
    MlflowTracker.beside(store, settings.tracking_uri)
    opt_out = OptOut.of_output(store)
    if settings.opt_out is not None:
        opt_out |= OptOut.read(settings.opt_out)
    synthetic = any(source.kind == "synthetic" for source in settings.sources)
    for card_id in [*cards_of(settings.suite), *([FACES_CARD] if synthetic else [])]:
        pull(card_id)
    return opt_out
