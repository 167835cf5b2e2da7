"""The parts of the endpoint's library, opened together from its settings."""

from dataclasses import dataclass
from pathlib import Path

from studiolo.service.admission import Admission
from studiolo.service.database import Database, migrate
from studiolo.service.erasure import Elsewhere, Erasure
from studiolo.service.expiry import Expiry
from studiolo.service.identities import Identities
from studiolo.service.keys import Keys
from studiolo.service.metrics import Meters, NoMeters
from studiolo.service.queue import JobQueue
from studiolo.service.receipts import ReceiptKey
from studiolo.service.settings import ServiceSettings
from studiolo.service.speeds import Speeds
from studiolo.service.webhooks import Webhooks
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker


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
            expiry=Expiry(queue, store),
        )

    def tend(self, elsewhere: Elsewhere | None = None, erasures: bool = True) -> dict[str, int]:
        """What has to be done now and then: call it every second or so, in any number of processes.

        Leases that ran out, webhooks that are due, results that are over, erasures that were begun, and once a day, by
        one process of all, files of nobody. A process that cannot reach what the samplers hold leaves `erasures` to
        those that can. Returns how many of each. The meters are told what is still to be done.
        """
        counts = {"swept": self.queue.sweep(), "webhooks": self.webhooks.deliver()}
        counts["expired"] = self.expiry.expire_results()
        begun = self.erasure.unfinished() if erasures else []
        erased = [self.erasure.erase(tenant, identity, elsewhere) for tenant, identity in begun]
        counts["erased"] = sum(1 for one in erased if one is not None and one.receipt is not None)
        counts["orphans"] = self.expiry.remove_orphans_daily()
        self.queue.measure()
        return counts

    def close(self) -> None:
        """Give the database's connections back."""
        self.database.close()
