"""Settings of the whole endpoint: the queue's, the models' and those of each kind of process, in one file for all."""

from pathlib import Path
from typing import Self

import pydantic

from studiolo.service.settings import ServiceSettings
from studiolo.settings import FaceLoraSettings, GenerationSettings, PerceptionSettings, Section, SelectionSettings


class _Replicas(Section):
    """A deployment with as many replicas under load as without."""

    replicas: int = pydantic.Field(1, ge=1)
    """Processes. One is enough for many; a second one takes over at once when a machine is lost."""
    cpus: float = pydantic.Field(0.25, ge=0)
    """CPU slots of each."""


class WebSettings(_Replicas):
    """How long the routes wait, and how they are addressed."""

    public_url: str | None = None
    """What URLs in answers begin with, such as `https://portraits.example.com`; as the request was addressed, when
    absent."""
    max_body_kib: int = pydantic.Field(64, ge=1)
    """Size of a JSON body."""
    body_s: float = pydantic.Field(20.0, gt=0)
    """Seconds a client may take to send a JSON body."""
    upload_s: float = pydantic.Field(600.0, gt=0, le=1800)
    """Seconds a client may take to send an album; files that have no row after an hour are thrown away."""
    wrong_keys_per_min: int = pydantic.Field(60, ge=1)
    """Wrong API keys that may come from an address in a minute; then keys that were not good before are not heard from
    there for a while."""
    max_wait_s: float = pydantic.Field(60.0, ge=0)
    """Longest `wait_s` of a request for portraits."""
    openai_wait_s: float = pydantic.Field(120.0, gt=0)
    """Deadline of a request in OpenAI's form, which is answered when it is done."""
    poll_s: float = pydantic.Field(0.5, gt=0)
    """Pause between two looks at a job that somebody waits for."""


class PageSettings(Section):
    """The studio page: one process that asks `/v1` over HTTP, like any other client."""

    endpoint_url: str | None = None
    """Where `/v1` is, as this process reaches it. Absent: port 8000 of its machine, or where `python -m jobs serve`
    listens."""
    signed_in_s: float = pydantic.Field(43_200.0, gt=0)
    """Seconds after which a browser forgets the key that somebody signed in with."""
    cache_s: float = pydantic.Field(900.0, gt=0)
    """Seconds for which photos that were dropped and not sent, and pictures to edit, lie on this process's disk."""
    cpus: float = pydantic.Field(0.0, ge=0)
    """CPU slots; it waits for others nearly all the time."""


class SamplerSettings(Section):
    """Replicas that denoise: each holds the base and an engine with `generation.slots` slots."""

    min_replicas: int = pydantic.Field(1, ge=0)
    """Replicas kept when nothing is to be done; 0 saves an accelerator, and the first job waits for a start."""
    max_replicas: int = pydantic.Field(1, ge=1)
    """Replicas under load."""
    target_steps: int = pydantic.Field(480, ge=1)
    """Denoising steps, queued and running, for each replica: with more there are more replicas."""
    up_after_s: float = pydantic.Field(10.0, ge=0)
    """Seconds of such load before replicas are added."""
    down_after_s: float = pydantic.Field(300.0, ge=0)
    """Seconds without it before they are taken away."""
    cpus: float = pydantic.Field(1.0, ge=0)
    """CPU slots of each."""
    gpus: float = pydantic.Field(0.0, ge=0)
    """Accelerators of each; 0 runs on the CPU."""


class FinisherSettings(Section):
    """Replicas that enlarge, fuse and judge what was denoised."""

    min_replicas: int = pydantic.Field(1, ge=1)
    """Replicas at least."""
    max_replicas: int = pydantic.Field(1, ge=1)
    """Replicas under load."""
    cpus: float = pydantic.Field(0.5, ge=0)
    """CPU slots of each."""


class DispatcherSettings(_Replicas):
    """Replicas that lease jobs of portraits and have them made."""

    jobs: int = pydantic.Field(8, ge=1)
    """Jobs in hand for each sampler that is there: enough that no slot idles while another job is judged."""
    lease_s: float = pydantic.Field(30.0, gt=0)
    """Seconds for which a job is held; extended at a third of it. After a crash it is taken up again so much later."""
    poll_s: float = pydantic.Field(0.25, gt=0)
    """Pause between two looks at an empty queue."""
    drain_s: float = pydantic.Field(60.0, ge=0)
    """Seconds that jobs in hand may take to end when the replica is stopped; then they are given back untried."""


class TrainerSettings(Section):
    """The process that learns identities: `python -m jobs trainer`."""

    lease_s: float = pydantic.Field(60.0, gt=0)
    """Seconds for which a job is held; extended at a third of it. After a crash it is taken up again so much later,
    from its last checkpoint."""
    poll_s: float = pydantic.Field(1.0, gt=0)
    """Pause between two looks at an empty queue."""
    album_s: float = pydantic.Field(300.0, gt=0)
    """Seconds for which an album's photos are looked at, while those in training wait; what has not been seen by then
    is refused (`too_slow`)."""
    stall_s: float = pydantic.Field(900.0, gt=0)
    """Seconds without a step of the training, a photo or a file; then the process ends itself."""
    device: str = "cpu"
    """Torch's name of the device to learn on."""
    metrics_port: int = pydantic.Field(0, ge=0, lt=65_536)
    """Port at which Prometheus finds this process's metrics; 0 for none. Trainers of one machine need a port each, see
    `--metrics-port`."""


class EndpointSettings(ServiceSettings):
    """Everything the endpoint can be told."""

    suite: str = "embedded"
    """Model suite that looks at photos and portraits."""
    base: str = "embedded-base"
    """Card of the base; the `model` of the OpenAI-compatible route."""
    controlnets: str | None = "embedded-controlnets"
    """Card of the ControlNets for the base, which edits are made with; null: edits are not made."""
    template_side_px: int = pydantic.Field(1600, ge=256)
    """Templates of edits are scaled down to at most this longest side, and so large are the pictures."""
    base_px: int = pydantic.Field(128, ge=8)
    """Side of the base's pictures; portraits have 1, 2 or 4 times as much."""
    style_folder: str | None = None
    """Folder with style files of one's own."""
    perception: PerceptionSettings = PerceptionSettings()
    """Reading photos and templates of edits, and seeing faces."""
    selection: SelectionSettings = SelectionSettings()
    """Choosing references, and what is unsafe."""
    face_lora: FaceLoraSettings = FaceLoraSettings()
    """Learning an identity."""
    generation: GenerationSettings = GenerationSettings()
    """Making and judging portraits."""
    web: WebSettings = WebSettings()
    """Answering HTTP."""
    page: PageSettings = PageSettings()
    """Showing the studio page."""
    sampler: SamplerSettings = SamplerSettings()
    """Denoising."""
    finisher: FinisherSettings = FinisherSettings()
    """Finishing and judging."""
    dispatcher: DispatcherSettings = DispatcherSettings()
    """Working off jobs of portraits."""
    trainer: TrainerSettings = TrainerSettings()
    """Learning identities."""

    def placed(self, folder: Path) -> Self:
        """The same with all paths of this disk made absolute, relative ones from `folder`: processes may stand
        elsewhere.
        """
        place, sqlite = folder.absolute(), "sqlite:///"
        database = self.database
        if database.startswith(sqlite) and not database.startswith((f"{sqlite}/", f"{sqlite}:")):
            database = f"{sqlite}{place / database.removeprefix(sqlite)}"
        return self.model_copy(
            update={
                "database": database,
                "store": self.store if "://" in self.store else str(place / self.store),
                "receipt_key": str(place / self.receipt_key),
                "provenance": self.provenance.placed(place),
                "style_folder": None if self.style_folder is None else str(place / self.style_folder),
            }
        )
