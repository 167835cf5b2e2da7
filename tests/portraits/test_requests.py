"""Requests over HTTP and the bulk job's orders that workers make of them."""

import pytest

from studiolo.errors import SettingsError
from studiolo.generation.slot import skipped_steps
from studiolo.portraits.orders import Order, order_seed
from studiolo.portraits.requests import NOBODY, EditRequest, PortraitRequest, request_of
from studiolo.portraits.styles import load_style
from studiolo.settings import GenerationSettings

DEFAULT = GenerationSettings()


def test_the_order_is_that_of_a_bulk_job_with_the_same_seed() -> None:
    wanted = PortraitRequest(identity_id="id_x", style="studio", count=3, seed=5)
    bulk = Order(identity_id="id_x", style="studio", count=3, seed=order_seed(5, "studio"), generation=DEFAULT)
    assert wanted.order("job_1", DEFAULT) == bulk
    assert wanted.look() == load_style("studio")


def test_it_survives_the_queue() -> None:
    wanted = PortraitRequest(style="studio", prompt="in a red coat", upscale=1, accept_similarity=0.0)
    kept = wanted.model_dump(mode="json", exclude_defaults=True)
    assert PortraitRequest.model_validate(kept) == wanted
    assert "seed" not in kept


def test_without_a_seed_every_attempt_makes_the_same_and_every_job_another() -> None:
    wanted = PortraitRequest(style="studio")
    first, again, other = (wanted.order(job_id, DEFAULT).seed for job_id in ("job_1", "job_1", "job_2"))
    assert first == again != other
    asked_again = PortraitRequest(style="studio", seed=wanted.job_seed("job_1"))
    assert asked_again.order("job_2", DEFAULT).seed == first


def test_words_of_the_caller() -> None:
    with_style = PortraitRequest(style="studio", prompt="in a red coat", negative_prompt="hats").look()
    assert with_style.words == f"{load_style('studio').words}, in a red coat"
    assert with_style.negative_prompt.endswith("hats")
    alone = PortraitRequest(prompt="a pirate").look()
    assert (alone.words, alone.has_lora) == ("a pirate", False)
    with pytest.raises(SettingsError, match="did you mean 'studio'"):
        PortraitRequest(style="stduio").look()


def test_what_it_takes() -> None:
    settings = GenerationSettings(steps=30, candidates_per_portrait=2)
    assert PortraitRequest(identity_id="id_x", style="studio", count=3).steps(settings) == 180
    nobodys = PortraitRequest(style="studio", count=3)
    assert nobodys.steps(settings) == 90
    assert nobodys.order("job_1", settings).identity_id == NOBODY


def test_an_edit_takes_the_steps_that_its_passes_do() -> None:
    for steps in range(1, 51):
        for strength in (0.01, 0.3, 0.65, 0.66, 1.0):
            settings = GenerationSettings(steps=steps, candidates_per_portrait=2)
            wanted = EditRequest(identity_id="id_x", template_sha256="0" * 64, count=3, strength=strength)
            each = steps - skipped_steps(steps, strength)
            assert wanted.steps_each(settings) == each
            assert wanted.steps(settings) == 2 * steps + 6 * each


def test_of_what_kind_a_kept_request_is() -> None:
    edit = EditRequest(identity_id="id_x", template_sha256="0" * 64, face=(0.25, 0.5))
    portraits = PortraitRequest(identity_id="id_x", style="studio")
    for wanted in (edit, portraits):
        assert request_of(wanted.model_dump(mode="json", exclude_defaults=True)) == wanted
    assert edit.job_seed("job_1") == portraits.job_seed("job_1")


def test_its_own_settings_win() -> None:
    anna = {"identity_id": "anna", "style": "studio"}
    own = PortraitRequest(**anna, upscale=4, accept_similarity=0.0).settings(DEFAULT)
    assert (own.upscale, own.accept_similarity, own.steps) == (4, 0.0, DEFAULT.steps)
    weights = {"face_weight": 0.5, "style_weight": 1.5, "fusion": 0.0}
    assert PortraitRequest(**anna, **weights).settings(DEFAULT) == DEFAULT.model_copy(update=weights)
    assert PortraitRequest(**anna).settings(DEFAULT) == DEFAULT


def test_of_a_person_of_the_base_no_more_are_made_than_wanted() -> None:
    nobody = PortraitRequest(style="studio", count=3)
    assert nobody.candidates(DEFAULT) == 3
    assert nobody.order("job", DEFAULT).generation.candidates_per_portrait == 1
    assert nobody.steps(DEFAULT) == 3 * DEFAULT.steps
