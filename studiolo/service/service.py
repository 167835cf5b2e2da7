"""The parts of the endpoint's library, opened together from its settings."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from studiolo.errors import StudioloError
from studiolo.provenance.credentials import Credentials
from studiolo.provenance.manifests import Signer
from studiolo.service.admission import Admission
from studiolo.service.database import Database, migrate
from studiolo.service.erasure import Elsewhere, Erasure
from studiolo.service.expiry import Expiry
from studiolo.service.fetching import PhotoFetcher
from studiolo.service.identities import Identities
from studiolo.service.keys import Keys
from studiolo.service.metrics import Meters, NoMeters
from studiolo.service.provenance import Provenance
from studiolo.service.queue import JobQueue
from studiolo.service.receipts import ReceiptKey
from studiolo.service.settings import ServiceSettings
from studiolo.service.speeds import Speeds
from studiolo.service.styles import Styles
from studiolo.service.webhooks import Webhooks
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """Everything a process of the endpoint needs; each process opens its own."""

    settings: ServiceSettings
    meters: Meters
    database: Database
    store: Store
    tracker: MlflowTracker
    queue: JobQueue
    keys: Keys
    identities: Identities
    admission: Admission
    speeds: Speeds
    webhooks: Webhooks
    erasure: Erasure
    expiry: Expiry
    provenance: Provenance
    styles: Styles
    fetcher: PhotoFetcher

    @classmethod
    def open(cls, settings: ServiceSettings, meters: Meters | None = None) -> "Service":
        """Bring the database up to date and open all parts. Raises `SettingsError` and `DatabaseError`.

        `meters` is told what goes on in this process.
        """
        meters = meters or NoMeters()
        migrate(settings.database)
        database = Database(settings.database, patience_s=settings.database_patience_s)
        store = Store(settings.store)
        tracker = MlflowTracker.beside(store, settings.tracking_uri)
        queue = JobQueue(database, settings.queue, meters)
        return cls(
            settings,
            meters,
            database,
            store,
            tracker,
            queue,
            keys=Keys(database),
            identities=Identities(database),
            admission=Admission(queue, settings.admission, settings.limits),
            speeds=Speeds(database, settings.admission),
            webhooks=Webhooks(database, settings.webhooks, meters=meters),
            erasure=Erasure(queue, store, tracker, ReceiptKey.open(Path(settings.receipt_key))),
            expiry=Expiry(queue, store, tracker, settings.orphans_share),
            provenance=Provenance(database, Signer(Credentials.open(settings.provenance))),
            styles=Styles(database, store, settings.uploads.max_styles),
            fetcher=PhotoFetcher(settings.photo_urls),
        )

    def tend(self) -> dict[str, int]:
        """What has to be done at once: call it every second or so, in any number of processes.

        The meters are told what is still to be done, leases that ran out are given back, webhooks that are due are
        sent. Returns how many of each; what fails is logged and counts 0.
        """
        _try("measuring", self._measure)
        return {"swept": _try("sweeping", self.queue.sweep), "webhooks": _try("webhooks", self.webhooks.deliver)}

    def tidy(self, elsewhere: Elsewhere | None = None) -> dict[str, int]:
        """What may take long: call it every few seconds, beside `tend`, in any number of processes.

        Results that are over are thrown away, erasures and deletions of styles that were begun finished, and once a
        day, by one process of all, what belongs to nobody removed. A process that cannot reach what samplers hold gives
        no `elsewhere` and leaves those to others that can. Returns how many of each; what fails is logged and counts 0.
        """
        return {
            "expired": _try("expiry", self.expiry.expire_results),
            "erased": 0 if elsewhere is None else _try("erasures", lambda: self._erase(elsewhere)),
            "styles": 0 if elsewhere is None else _try("styles", lambda: self.styles.finish(elsewhere)),
            "orphans": _try("orphans", self.expiry.remove_orphans_daily),
        }

    def _measure(self) -> int:
        self.queue.measure()
        return 0

    def _erase(self, elsewhere: Elsewhere) -> int:
        def erase(tenant_id: str, identity_id: str) -> int:
            erased = self.erasure.erase(tenant_id, identity_id, elsewhere)
            return int(erased is not None and erased.receipt is not None)

        begun = self.erasure.unfinished()
        return sum(_try(f"erasure of {identity}", partial(erase, tenant, identity)) for tenant, identity in begun)

    def close(self) -> None:
        """Give the database's connections back."""
        self.database.close()


def _try(what: str, work: Callable[[], int]) -> int:
    """What `work` says; 0 when it raises, which is logged: the rest has to be done all the same."""
    try:
        return work()
    except StudioloError as error:
        _log.error("%s: %s", what, error)
    except Exception:
        _log.exception("%s: a fault", what)
    return 0
