"""What a job of portraits comes to: whose pictures, of what, in what, with which files."""

from dataclasses import dataclass

import numpy as np
import pydantic

from actors.finisher import Sitter, TemplateFile
from studiolo.errors import SettingsError, UnacceptableError
from studiolo.identities.learned import LearnedVersion
from studiolo.portraits.edits import EditOrder
from studiolo.portraits.orders import Order
from studiolo.portraits.requests import EditRequest, request_of
from studiolo.portraits.rounds import StoredLora, Subject
from studiolo.portraits.styles import Style
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.records import Job, template_path
from studiolo.service.service import Service
from studiolo.service.styles import OwnStyle, style_path

TRIGGER = "a person"
"""First words of the prompt for a person of the base."""


@dataclass(frozen=True)
class Plan:
    """What a job's request comes to."""

    order: Order
    style: Style
    subject: Subject
    sitter: Sitter
    style_lora: StoredLora | None = None
    edit: EditOrder | None = None
    """Where it is one; `order` and `style` are then its own."""
    template: TemplateFile | None = None
    """Of the edit."""


def plan_of(service: Service, settings: EndpointSettings, job: Job) -> Plan:
    """The bulk job's order of the same. Raises `UnacceptableError` for one there cannot be."""
    try:
        wanted = request_of(job.request)
    except pydantic.ValidationError:
        raise UnacceptableError("request", "The request is not one that is understood here; send it anew.") from None
    if isinstance(wanted, EditRequest):
        return _edit(service, settings, job, wanted)
    try:
        own = _own_style(service, job.tenant_id, wanted.style_id)
        style = wanted.look(settings.style_folder, None if own is None else own.style())
        order = wanted.order(job.id, settings.generation)
    except SettingsError as error:
        raise UnacceptableError("request", str(error)) from None
    order = order.model_copy(update={"unsafe_above": settings.selection.unsafe_above})
    style_lora = None if own is None else StoredLora(own.id, style_path(own.id), own.lora.sha256)
    if wanted.identity_id is None:
        return Plan(order, style, Subject(TRIGGER), Sitter(order.identity_id), style_lora)
    return Plan(order, style, *_person(service, job.tenant_id, wanted.identity_id), style_lora)


def _edit(service: Service, settings: EndpointSettings, job: Job, wanted: EditRequest) -> Plan:
    if settings.controlnets is None:
        raise UnacceptableError("no_edits", "Edits are not made here any more.")
    if wanted.steps_each(settings.generation) < 1:
        raise UnacceptableError("strength", "With this strength nothing is drawn; send it anew with more.")
    edit = EditOrder(
        identity_id=wanted.identity_id,
        template_sha256=wanted.template_sha256,
        face_xy=wanted.face,
        count=wanted.count,
        seed=wanted.job_seed(job.id),
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        strength=wanted.strength,
        generation=settings.generation,
        unsafe_above=settings.selection.unsafe_above,
    )
    what = edit.identity_id, template_path(job.id), settings.base_px, edit.face_ratio, edit.face_xy, edit.unsafe_above
    who = _person(service, job.tenant_id, edit.identity_id)
    return Plan(edit.portraits, edit.style, *who, edit=edit, template=TemplateFile(*what))


def _person(service: Service, tenant_id: str, identity_id: str) -> tuple[Subject, Sitter]:
    """The tenant's person, by the newest version."""
    identity = service.identities.get(tenant_id, identity_id)
    if identity is None or not identity.versions:
        raise UnacceptableError("identity", "The person is not there any more, or was never learned.")
    learned = LearnedVersion.model_validate(identity.versions[-1].record)
    subject = Subject(learned.trigger, learned.common_tags, learned.lora_path, learned.lora_sha256)
    sitter = Sitter(
        identity_id,
        tuple(one.crop_path for one in learned.references),
        tuple(float(np.float32(one.quality_score)) for one in learned.references),
        np.asarray([one.embedding for one in learned.references], np.float32).reshape(-1, 128),
    )
    return subject, sitter


def _own_style(service: Service, tenant_id: str, style_id: str | None) -> OwnStyle | None:
    """The tenant's style of an order; None for one of ours. Raises `UnacceptableError` for one that is gone."""
    own = None if style_id is None else service.styles.get(tenant_id, style_id)
    if own is None and style_id is not None:
        raise UnacceptableError("style", "The style is not there any more.")
    return own
