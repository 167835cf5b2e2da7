"""Settings of the studio job: frozen, typed, documented under each field.

`Settings.load` reads a YAML file and applies what the command line says on top. A misspelt name or a value out of
range raises `SettingsError` with the nearest valid name before any work is done.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml

from studiolo.errors import SettingsError, nearest


class Section(pydantic.BaseModel):
    """Base of every settings section: immutable, and no unknown names."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Settings(Section):
    """Base of everything that one program can be told."""

    @classmethod
    def load(cls, config: Path | None, overrides: dict[str, Any]) -> Self:
        """Settings of `config` (YAML, may be None) with `overrides` (None values ignored) on top.

        Raises `SettingsError` when the file cannot be read or any name or value does not fit.
        """
        values = {} if config is None else _read_yaml(config)
        values.update({name: value for name, value in overrides.items() if value is not None})
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise SettingsError("\n".join(_explain(cls, item) for item in error.errors())) from None


def _rising_shares(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError("wanted 0 < least <= largest <= 1")
    return value


class ProvenanceSettings(Settings):
    """What delivered pictures are signed with, as C2PA has it."""

    certificates: str | None = None
    """Path of a PEM file with the certificate that signs, then those up to its authority. Absent: made for development,
    and proof to nobody else."""
    private_key: str | None = None
    """Path of a PEM file with its private key, unencrypted."""
    earlier_certificates: tuple[str, ...] = ()
    """Paths of PEM files with certificates that signed before: their manifests are still ours."""
    timestamp_url: str | None = pydantic.Field(None, pattern=r"^https?://[\x21-\x7e]{1,2000}$")
    """URL of a timestamp authority (RFC 3161) that is asked at each signature, so that manifests outlive the
    certificate; absent: signing needs no network."""
    development: str = "out/provenance"
    """Folder of the certificate for development; made when none is named and none is there. All processes need the same
    one."""

    @pydantic.model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificates is None) != (self.private_key is None):
            raise ValueError("wanted both certificates and private_key, or neither")
        return self

    def placed(self, folder: Path) -> Self:
        """The same with all paths absolute, relative ones from `folder`."""
        named = {name: getattr(self, name) for name in ("certificates", "private_key", "development")}
        paths: dict[str, Any] = {name: str(folder / path) for name, path in named.items() if path is not None}
        earlier = tuple(str(folder / path) for path in self.earlier_certificates)
        return self.model_copy(update={**paths, "earlier_certificates": earlier})


class PerceptionSettings(Section):
    """How photos are read and which faces are seen."""

    max_pixels: int = pydantic.Field(120_000_000, gt=0)
    """A photo with more pixels is refused before it is decoded."""
    working_side_px: int = pydantic.Field(1600, ge=256)
    """Photos are scaled down to this longest side after decoding."""
    min_side_px: int = pydantic.Field(64, ge=1)
    """A photo with a shorter side is too small."""
    decode_seconds: float = pydantic.Field(30.0, gt=0)
    """A photo that takes longer to decode is given up."""
    decode_mib: int = pydantic.Field(1024, ge=1)
    """A photo that needs more memory to decode, beside its file, is given up."""
    detector_score: float = pydantic.Field(0.7, ge=0, le=1)
    """Least confidence of the face detector."""
    min_face_px: int = pydantic.Field(48, ge=8)
    """A face whose box has a shorter side is too small."""
    mesh_score: float = pydantic.Field(0.5, ge=0, le=1)
    """Least confidence of the face mesh."""
    actors: int = pydantic.Field(2, ge=1)
    """Perception actors."""
    cpus_per_actor: float = pydantic.Field(0.75, gt=0)
    """CPU slots an actor takes in the plan."""
    time_limit_s: float = pydantic.Field(300.0, gt=0)
    """Seconds an actor may take over one photo; then it is ended and begins anew, twice, before the photo is
    given up."""
    memory_limit_mib: int | None = pydantic.Field(None, ge=256)
    """An actor that takes more memory than this is ended in the same way; null leaves it to Ray."""

    def of_templates(self, side_px: int) -> Self:
        """The same for the templates of edits, which have a longest side of their own."""
        return self.model_copy(update={"working_side_px": side_px})


class SelectionSettings(Section):
    """Which photos of an album become references."""

    dominant_face_ratio: float = pydantic.Field(4.0, ge=1)
    """With several faces, the largest must have this many times the area of the second (FaceChain's rule)."""
    min_quality: float = pydantic.Field(0.4, ge=0, le=1)
    """Least quality score of a reference."""
    max_references: int = pydantic.Field(20, ge=1)
    """More good photos than this are surplus; the best are kept."""
    min_references: int = pydantic.Field(1, ge=1)
    """Fewer, and the identity fails."""
    unsafe_above: float = pydantic.Field(0.8, ge=0, le=1)
    """A photo or portrait scored above this by the safety model is dropped."""
    minors: Literal["keep", "flag", "refuse"] = "flag"
    """What becomes of a person who appears to be a minor: `keep` does not look, `flag` says so in the rows and the
    gallery, `refuse` fails the identity. The age is an estimate, see docs/decisions/0008-bad-input.md."""
    adult_age: float = pydantic.Field(18.0, ge=0, le=80)
    """Years; a person whose median estimated age over the references is below appears to be a minor."""


class FaceLoraSettings(Section):
    """How an identity is learned."""

    rank: int = pydantic.Field(16, ge=1, le=128)
    """LoRA rank."""
    alpha: float = pydantic.Field(16.0, gt=0)
    """LoRA alpha; the update is scaled by alpha / rank."""
    targets: tuple[str, ...] = pydantic.Field(
        ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"), min_length=1
    )
    """Ends of the names of the UNet's layers that get an update: linear layers and 1x1 convolutions. All projections of
    its attention and feed-forward blocks as it is."""
    start: str | None = None
    """Path of a face-LoRA that every identity begins from, a common one of many faces, say; absent: from nothing."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """What the frozen base computes in; what is trained is kept in float32."""
    slots: int | None = pydantic.Field(None, ge=1)
    """Identities trained in one pass over the base; null: as many as the worker's memory and cores are good for."""
    learning_rate: float = pydantic.Field(1.5e-3, gt=0)
    """Peak AdamW learning rate."""
    steps: int = pydantic.Field(800, ge=1)
    """Optimiser steps."""
    batch_size: int = pydantic.Field(4, ge=1)
    """Samples a step."""
    resolution: int | None = pydantic.Field(None, ge=32, multiple_of=8)
    """Side in px of the pictures that are learned from, a multiple of 8; null: the base's own. Portraits keep the
    base's."""
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"] = (
        "cosine_with_restarts"
    )
    """How the learning rate goes over an identity's steps, by diffusers' names: it stays at its peak, or falls to zero
    in a line or a cosine."""
    warmup_steps: int | None = pydantic.Field(None, ge=0)
    """Steps in which the learning rate rises to its peak; null: a twentieth of the steps. The schedule `constant` has
    none."""
    restarts: int = pydantic.Field(1, ge=1)
    """Cycles of the schedule `cosine_with_restarts`."""
    min_snr_gamma: float | None = pydantic.Field(5.0, gt=0)
    """Clamp of the signal-to-noise weighting of the loss; null weighs all timesteps alike."""
    background_weight: float = pydantic.Field(0.1, ge=0, le=1)
    """Weight of the loss outside the head mask; 1 switches the mask off."""
    caption_dropout: float = pydantic.Field(0.1, ge=0, le=1)
    """Share of samples trained with the empty prompt."""
    max_photos: int = pydantic.Field(8, ge=1)
    """References an identity is learned from: those whose expression is nearest to the person's usual one."""
    views_per_photo: int = pydantic.Field(4, ge=1)
    """Random crops cached for each photo; each also flipped."""
    view_face_ratio: tuple[float, float] = (0.62, 0.78)
    """Least and largest share of a view's side that the face's box takes. The embedded base knows close portraits;
    FaceChain's bases of 512 px take 0.35 to 0.45."""
    look_share: float = pydantic.Field(0.25, ge=0, le=1)
    """Share of the views turned into black and white or warm film, with these words in their captions, so that they
    keep their sense beside the identity; 0 trains on the photos as they are, like FaceChain."""
    noise_offset: float = pydantic.Field(0.0, ge=0, le=1)
    """Strength of noise that is the same for a whole channel of a sample: lets pictures become darker and brighter."""
    prior_weight: float = pydantic.Field(0.0, ge=0)
    """Weight of the loss on the base's own pictures of the identity's class (its trigger), so that not everybody comes
    to look alike; as many samples again in each step. 0 does without."""
    prior_images: int = pydantic.Field(16, ge=1)
    """Pictures of a class; made once for each class and worker."""
    kohya_file: bool = False
    """Write each face-LoRA a second time, as `kohya.safetensors`, in the format of kohya's trainer and the webui."""
    gradient_checkpointing: bool = False
    """Compute the base's activations a second time instead of keeping them: less memory, a third more time."""
    validate_every: int = pydantic.Field(0, ge=0)
    """Steps between validations: a few pictures of a fixed prompt and seeds are compared with held-out photos (one in
    five; with fewer than five photos with all). The face-LoRA with the best likeness is the result, of those whose
    pictures differ at least half as much as those of the most diverse one or, where that is less, half as much as the
    person's own photos. 0 keeps the last one: a validation costs seconds, see docs/LOG.md."""
    validation_patience: int = pydantic.Field(3, ge=1)
    """After so many validations without a better face-LoRA a training ends early."""
    gradient_clip: float = pydantic.Field(1.0, gt=0)
    """Largest gradient norm."""
    checkpoint_seconds: float = pydantic.Field(20.0, gt=0)
    """Seconds between checkpoints of a training, from which it goes on after an interruption, to the same bytes."""
    workers: tuple[int, int] = (1, 2)
    """Least and most training workers, each with a pack of its own; their number follows a cluster that grows."""
    cpus_per_worker: int = pydantic.Field(1, ge=1)
    """Whole CPUs, and threads, of a worker."""
    accelerator: bool = False
    """Whether each worker has a GPU and trains on it."""
    time_limit_s: float = pydantic.Field(4 * 3600.0, gt=0)
    """Seconds that may pass in a worker until an identity begins or ends; then the worker is ended. Its identities are
    tried alone, and one that ends two more workers is given up."""
    memory_limit_mib: int | None = pydantic.Field(None, ge=256)
    """A worker that takes more memory than this is ended in the same way; null leaves it to Ray."""

    _rising = pydantic.field_validator("view_face_ratio")(_rising_shares)

    @pydantic.field_validator("warmup_steps")
    @classmethod
    def _within_the_schedule(cls, value: int | None, info: pydantic.ValidationInfo) -> int | None:
        steps, schedule = info.data.get("steps"), info.data.get("schedule")
        if value and schedule == "constant":
            raise ValueError("wanted none with the schedule 'constant'; there is 'constant_with_warmup'")
        if value and steps is not None and value > steps:
            raise ValueError(f"wanted at most the {steps} of face_lora.steps")
        return value

    @pydantic.field_validator("workers")
    @classmethod
    def _least_and_most(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError("wanted 1 <= least <= most")
        return value


class GenerationSettings(Section):
    """How portraits are made and judged."""

    steps: int = pydantic.Field(30, ge=1)
    """Denoising steps."""
    guidance_scale: float = pydantic.Field(3.0, ge=1)
    """Classifier-free guidance scale."""
    eta: float = pydantic.Field(1.0, ge=0, le=1)
    """Noise added back at each step of DDIM: 0 is deterministic sampling, 1 is ancestral. A small base repairs its
    own errors with it, see docs/LOG.md."""
    face_weight: float = pydantic.Field(1.0, ge=0, le=2)
    """Weight of the face-LoRA."""
    style_weight: float = pydantic.Field(1.0, ge=0, le=2)
    """Weight of the style-LoRA, for styles that have one."""
    slots: int = pydantic.Field(4, ge=1)
    """Fixed batch of the denoiser; idle slots are padded so that bytes do not depend on neighbours."""
    rank_budget: int = pydantic.Field(64, ge=1)
    """Most that the ranks of one candidate's LoRAs, a face's and a style's, may add up to. Less is a little faster."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the denoiser: bfloat16 is about twice as fast on processors with matrix units for it, see docs/LOG.md."""
    upscale: Literal[1, 2, 4] = 2
    """Upscaling factor."""
    fusion: float = pydantic.Field(0.8, ge=0, le=1)
    """How much of the best photo's face is set into a portrait; 0 leaves the portrait to the model."""
    retouch: float = pydantic.Field(0.0, ge=0, le=1)
    """How far skin is evened; pores and the skin's mean colour stay."""
    face_share: tuple[float, float] = (0.25, 0.95)
    """Least and largest share of an accepted portrait's height that its face takes."""
    accept_similarity: float = pydantic.Field(0.5, ge=0, le=1)
    """Least calibrated similarity of an accepted portrait; without fusion the embedded base seldom reaches 0.1.
    Below 0.1 the verdict is `different`, above 0.9 `same`."""
    retries: int = pydantic.Field(2, ge=0)
    """Further rounds of candidates for a style with too few accepted portraits."""
    candidates_per_portrait: int = pydantic.Field(2, ge=1)
    """Candidates made in one round for each portrait ordered."""
    actors: int = pydantic.Field(2, ge=1)
    """Portrait actors."""
    orders_in_flight: int = pydantic.Field(2, ge=1)
    """Orders an actor works on at once: their candidates share its slots, and one order's are judged while another's
    are made. No byte depends on it."""
    cpus_per_actor: float = pydantic.Field(0.75, gt=0)
    """CPU slots an actor takes in the plan."""
    time_limit_s: float = pydantic.Field(4 * 3600.0, gt=0)
    """Seconds an actor may take over one order; then it is ended. The order is tried alone, and given up when it ends
    two more actors."""
    memory_limit_mib: int | None = pydantic.Field(None, ge=256)
    """An actor that takes more memory than this is ended in the same way; null leaves it to Ray."""

    _rising = pydantic.field_validator("face_share")(_rising_shares)


class StudioSettings(Settings):
    """Everything the studio job can be told."""

    albums: str = pydantic.Field(min_length=1)
    """URL of a folder of album folders, or of a Parquet, CSV or JSONL manifest (columns: album_id, uri)."""
    out: str = pydantic.Field(min_length=1)
    """URL of the output; apart from the albums."""
    styles: tuple[str, ...] = ("studio",)
    """Names of the styles ordered for everyone, each once; a list, or one line with commas."""
    per_style: int = pydantic.Field(4, ge=1)
    """Portraits wanted in each style."""
    orders: str | None = None
    """URL of an order file (YAML, CSV or JSONL): styles, edits, counts, prints and the last day kept, album by album.
    Where it says nothing, `styles` and `per_style` hold."""
    templates: str | None = None
    """URL of a folder of pictures in which people are drawn, where an order file's `edits` name them."""
    controlnets: str | None = "embedded-controlnets"
    """Card of the ControlNets for the suite's base, which edits are made with."""
    template_side_px: int = pydantic.Field(3000, ge=256)
    """Templates are scaled down to at most this longest side, and so large are the pictures: one of 3000 x 2000 takes
    18 MB of memory for each candidate of an order."""
    retention_days: int | None = pydantic.Field(None, ge=1)
    """Days after an album's first job on which everything made of it falls due for `python -m jobs retain`; an order's
    `delete_after` wins. Absent: nothing falls due."""
    suite: str = "embedded"
    """Model suite."""
    style_folder: str | None = None
    """Folder with the user's own style files."""
    commercial: bool = False
    """Refuse models whose licence forbids commercial use."""
    seed: int = pydantic.Field(0, ge=0, lt=2**31)
    """Seed of the whole job."""
    cpus: int | None = pydantic.Field(None, gt=0)
    """CPU slots of the local cluster; all cores when absent. Of a cluster that is joined, those it may grow to."""
    object_store_mib: int = pydantic.Field(256, ge=80)
    """Size of Ray's object store on a local cluster."""
    tracking_uri: str | None = None
    """MLflow tracking URI; a database beside the output when absent, which needs an output on this disk."""
    max_failed_share: float = pydantic.Field(0.9, ge=0, le=1)
    """With a larger share of photos failed (not read or not decoded; dropped ones do not count), the job stops after
    perception, with exit code 1: something is wrong with the albums or their storage. 1 never stops."""
    perception: PerceptionSettings = PerceptionSettings()
    """Reading photos and seeing faces."""
    selection: SelectionSettings = SelectionSettings()
    """Choosing references."""
    face_lora: FaceLoraSettings = FaceLoraSettings()
    """Learning an identity."""
    generation: GenerationSettings = GenerationSettings()
    """Making and judging portraits."""

    @pydantic.field_validator("styles", mode="before")
    @classmethod
    def _split_line(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @pydantic.field_validator("styles")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("wanted at least one style")
        if len(set(value)) < len(value):
            raise ValueError("wanted each style once; `per_style` sets how many portraits it gets")
        return value


def require_path(path: Path, what: str, wanted: str, *, folder: bool = False) -> None:
    """Raises `SettingsError` unless a file, or with `folder` a folder, is at `path`.

    The message begins with `what`, says what was `wanted`, and names the nearest entry where the path goes wrong.
    """
    if os.path.exists(path):
        if os.path.isdir(path) is folder:
            return
        raise SettingsError(f"{what} {path}: got a {'file' if folder else 'folder'}, wanted {wanted}")
    missing = path.absolute()
    while not os.path.isdir(missing.parent):
        missing = missing.parent
    names: list[str] = []
    with suppress(OSError):  # a folder that may not be listed
        names = [name for name in os.listdir(missing.parent) if not name.startswith(".")]
    hint = nearest(missing.name, names) if names else "it shows no entry"
    if "did you mean" not in hint and len(names) > 10:
        hint = f"none of its {len(names)} entries has a similar name"
    raise SettingsError(f"{what} {path}: nothing is there, wanted {wanted}; in {missing.parent}: {hint}")


def _read_yaml(path: Path) -> dict[str, Any]:
    require_path(path, "settings file", "a YAML file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"settings file {path}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"settings file {path}: got a {type(values).__name__}, wanted `name: value` lines")
    return values


def _explain(model: type[pydantic.BaseModel], item: Any) -> str:
    """One line for one pydantic error, with the nearest valid name for a misspelt one."""
    place = [str(part) for part in item["loc"]]
    name = ".".join(place)
    if item["type"] == "extra_forbidden":
        section: type[pydantic.BaseModel] = model
        for part in place[:-1]:
            annotation = section.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
                section = annotation
        return f"no setting is called {name!r}; {nearest(place[-1], section.model_fields)}"
    if item["type"] == "missing":
        return f"setting {name!r} is missing; give it on the command line or in the settings file"
    message = item["msg"].removeprefix("Value error, ")
    return f"setting {name!r}: got {item['input']!r}; {message[0].lower()}{message[1:]}"
