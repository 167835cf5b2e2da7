"""Settings of the endpoint: frozen, typed, documented under each field, like those of the studio job."""

import ipaddress
import re

import pydantic

from studiolo.service.records import Kind
from studiolo.settings import ProvenanceSettings, Section, Settings

_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?")
"""A host as it stands in a request: lower case, IDNA where it is not ASCII."""


class QueueSettings(Section):
    """How accepted work is kept."""

    max_attempts: int = pydantic.Field(3, ge=1)
    """Attempts at a job; one that was begun and not given back in order counts."""
    portraits_deadline_s: float = pydantic.Field(3600.0, gt=0)
    """Deadline of portraits for which the caller named none."""
    identity_deadline_s: float = pydantic.Field(24 * 3600.0, gt=0)
    """Deadline of a training for which the caller named none."""
    result_days: float = pydantic.Field(7.0, gt=0)
    """Days after which the result of a job, and its files, are thrown away."""

    def deadline_s(self, kind: Kind) -> float:
        """The default of a kind."""
        return {Kind.IDENTITY: self.identity_deadline_s, Kind.PORTRAITS: self.portraits_deadline_s}[kind]


class LimitSettings(Section):
    """What one API key may ask for; `python -m jobs keys create` can set each for a key of its own."""

    requests_per_s: float = pydantic.Field(10.0, gt=0)
    """Requests a second in the long run."""
    burst: int = pydantic.Field(40, ge=1)
    """Requests at once, after a pause."""
    portraits_per_day: int = pydantic.Field(2000, ge=0)
    """Portraits asked for in a day (UTC)."""
    identities_per_day: int = pydantic.Field(100, ge=0)
    """Trainings asked for in a day (UTC)."""
    open_jobs: int = pydantic.Field(200, ge=1)
    """Jobs that wait or run at a time."""

    def per_day(self, kind: Kind) -> int:
        """Units of a kind in a day."""
        return {Kind.IDENTITY: self.identities_per_day, Kind.PORTRAITS: self.portraits_per_day}[kind]


class AdmissionSettings(Section):
    """What is accepted, and when it is too much."""

    portrait_steps_per_s: float = pydantic.Field(10.0, gt=0)
    """Denoising steps a second, of all portraits in a batch together, counted with until a sampler has reported."""
    identity_steps_per_s: float = pydantic.Field(2.0, gt=0)
    """The same for training steps."""
    speed_window_s: float = pydantic.Field(60.0, gt=0)
    """A worker that has reported nothing for so long is not counted with."""
    longest_retry_s: float = pydantic.Field(3600.0, ge=1)
    """Most that `Retry-After` says."""
    max_deadline_s: float = pydantic.Field(7 * 24 * 3600.0, gt=0)
    """Longest deadline that may be asked for."""
    max_portraits: int = pydantic.Field(16, ge=1)
    """Portraits in one request."""

    def steps_per_s(self, kind: Kind) -> float:
        """Of one worker that nobody has measured yet."""
        return {Kind.IDENTITY: self.identity_steps_per_s, Kind.PORTRAITS: self.portrait_steps_per_s}[kind]


class UploadSettings(Section):
    """How much an album, a style or a template may hold."""

    max_photos: int = pydantic.Field(40, ge=1)
    """Photos of an album."""
    max_photo_mib: float = pydantic.Field(25.0, gt=0)
    """Size of a photo's file."""
    max_album_mib: float = pydantic.Field(250.0, gt=0)
    """Size of all files of an album together."""
    max_template_mib: float = pydantic.Field(25.0, gt=0)
    """Size of an edit's template."""
    max_style_mib: float = pydantic.Field(64.0, gt=0)
    """Size of the LoRA of a tenant's own style; it is kept in float32, up to twice as large."""
    max_styles: int = pydantic.Field(50, ge=0)
    """Own styles of a tenant; 0 takes none."""


class PhotoUrlSettings(Section):
    """Photos that are given as URLs, and fetched."""

    hosts: tuple[str, ...] = ()
    """Names of the only hosts that are asked, such as `cdn.example.com`, or `cdn.example.com:8443` for another port
    than 443; empty: photos are not fetched. Redirects to other hosts are not followed."""
    networks: tuple[str, ...] = ()
    """Networks that are asked though they are not public, such as `10.1.0.0/16`; private, loopback and link-local
    addresses are refused otherwise."""
    ca_file: str | None = None
    """Path of a PEM file with the certificate authorities that are trusted, in place of the usual ones."""
    timeout_s: float = pydantic.Field(20.0, gt=0)
    """Seconds that a photo may take, its redirects included."""
    redirects: int = pydantic.Field(3, ge=0)
    """Redirects of a photo that are followed."""

    @property
    def places(self) -> frozenset[str]:
        """`HOST:PORT` of all hosts."""
        return frozenset(host if ":" in host else f"{host}:443" for host in self.hosts)

    @pydantic.field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(f"wanted names such as cdn.example.com or cdn.example.com:8443, got {host!r}")
        return value

    @pydantic.field_validator("networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)


class WebhookSettings(Section):
    """How a tenant's own server is told that a job has ended."""

    attempts: int = pydantic.Field(8, ge=1)
    """Tries before a webhook is given up."""
    first_pause_s: float = pydantic.Field(10.0, gt=0)
    """Pause after the first try; after each further one it is four times as long."""
    longest_pause_s: float = pydantic.Field(3600.0, gt=0)
    """Longest pause."""
    timeout_s: float = pydantic.Field(10.0, gt=0)
    """Seconds that a try may take as a whole."""
    plain_http: bool = False
    """Whether URLs may begin with `http://`."""
    hosts: tuple[str, ...] = ()
    """Names of the only hosts that are called; empty: any."""
    networks: tuple[str, ...] = ()
    """Networks that are called though they are not public, such as `10.1.0.0/16`; private, loopback and link-local
    addresses are refused otherwise."""
    ca_file: str | None = None
    """Path of a PEM file with the certificate authorities that are trusted, in place of the usual ones."""

    @pydantic.field_validator("networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same; raises `ValueError` for what is no network."""
    for network in value:
        ipaddress.ip_network(network)
    return value


class ServiceSettings(Settings):
    """Everything the endpoint can be told."""

    database: str = "sqlite:///out/service/service.db"
    """URL of the database: `sqlite:///FILE`, or `postgresql://USER@HOST/NAME` (extra `postgresql`)."""
    database_patience_s: float = pydantic.Field(5.0, gt=0)
    """Seconds for which a database that is away or busy is asked again before a request fails."""
    database_connections: int = pydantic.Field(48, ge=1)
    """Most connections to the database that a process has open: one for each thread that works at a time, of which 40
    answer requests. PostgreSQL's `max_connections` has to allow those of all processes."""
    store: str = "out/service/store"
    """URL of the place for photos, references, face-LoRAs and portraits: a folder, or any fsspec URL."""
    orphans_share: float = pydantic.Field(0.5, ge=0, le=1)
    """Largest share of the people and jobs with files in the store that may be thrown away in a day because the
    database does not know them; more looks like a wrong or an old database, and nothing goes."""
    tracking_uri: str | None = None
    """MLflow tracking URI; a database beside the store when absent, which needs a store on this disk."""
    receipt_key: str = "out/service/receipts.pem"
    """Path of the Ed25519 key that receipts of erasures are signed with; made when it is not there. All replicas need
    the same one."""
    queue: QueueSettings = QueueSettings()
    """Keeping accepted work."""
    limits: LimitSettings = LimitSettings()
    """What a key may ask for."""
    admission: AdmissionSettings = AdmissionSettings()
    """Accepting and refusing."""
    uploads: UploadSettings = UploadSettings()
    """Albums, styles and templates that are sent."""
    photo_urls: PhotoUrlSettings = PhotoUrlSettings()
    """Photos given as URLs."""
    webhooks: WebhookSettings = WebhookSettings()
    """Telling a tenant's own server."""
    provenance: ProvenanceSettings = ProvenanceSettings()
    """Signing pictures."""
