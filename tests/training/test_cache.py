from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st

from studiolo.albums.geometry import FACE_CENTRE
from studiolo.errors import SettingsError
from studiolo.generation.base import fits
from studiolo.generation.tiny import tiny_base
from studiolo.identities.references import CROP_FACE_RATIO, CROP_SIDE_PX
from studiolo.settings import StudioSettings
from studiolo.training.cache import (
    TrainingPhoto,
    build_cache,
    encode_images,
    encode_prompts,
    flipped_caption,
    random_look,
    random_view,
)
from studiolo.training.looks import LOOKS, put_look

SIDE_PX = 64
JITTER = 0.04


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return tiny_base()


def photo(seed: int = 0, caption: str = "a handsome man, looking left") -> TrainingPhoto:
    rng = np.random.default_rng(seed)
    return TrainingPhoto(
        rng.integers(0, 256, (CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8),
        rng.random((CROP_SIDE_PX, CROP_SIDE_PX), np.float32),
        caption,
    )


def photo_of_a_white_face() -> TrainingPhoto:
    """A white square where a stored crop has the face's box, and a mask of it."""
    mask = np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.float32)
    half = CROP_FACE_RATIO * CROP_SIDE_PX / 2
    low, high = round(CROP_SIDE_PX / 2 - half), round(CROP_SIDE_PX / 2 + half)
    mask[low:high, low:high] = 1
    return TrainingPhoto(np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2), mask, "a person")


@pytest.mark.parametrize("face_ratio", [(0.62, 0.78), (0.4, 0.4)])
def test_a_view_holds_the_whole_face_at_the_share_and_place_asked_for(face_ratio: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    shares, centres = [], []
    for _ in range(60):
        image, mask = random_view(photo_of_a_white_face(), 128, face_ratio, rng)
        assert image.shape == (128, 128, 3)
        np.testing.assert_allclose(mask, image[..., 0] / np.float32(255), atol=0.2)
        rows, columns = np.nonzero(mask > 0.5)
        shares.append((np.ptp(columns) + 1) / 128)
        centres.append(((columns.min() + columns.max() + 1) / 256, (rows.min() + rows.max() + 1) / 256))
    assert face_ratio[0] - 0.02 < min(shares) <= max(shares) < face_ratio[1] + 0.02
    assert np.abs(np.array(centres) - FACE_CENTRE).max() < JITTER + 0.02
    assert np.array(centres).std(axis=0).min() > 0.01


def test_a_view_never_reaches_beyond_the_stored_crop() -> None:
    white = TrainingPhoto(np.full((256, 256, 3), 255, np.uint8), np.ones((256, 256), np.float32), "a person")
    rng = np.random.default_rng(0)
    for _ in range(10):
        image, mask = random_view(white, SIDE_PX, (0.1, 0.36), rng)
        assert image.min() == 255
        assert mask.min() == 1


def test_the_cache_holds_every_view_beside_its_mirror_image(base: StableDiffusionPipeline) -> None:
    photos = [photo(0), photo(1, "a handsome man, smile")]
    cache = build_cache(base, photos, 3, (0.62, 0.78), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    views = []
    for one in photos:
        for _ in range(3):
            views.append(random_view(one, SIDE_PX, (0.62, 0.78), rng))
            rng.random()  # whether the view gets a look
    images = [np.ascontiguousarray(image) for view, _ in views for image in (view, view[:, ::-1])]
    mean, std = encode_images(base, images)
    assert cache.mean_NCHW.shape == (12, 8, 8, 8)
    torch.testing.assert_close(cache.mean_NCHW, mean)
    torch.testing.assert_close(cache.std_NCHW, std)
    # a latent pixel covers 8x8 pixels of the view
    wanted = views[0][1].reshape(8, 8, 8, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(cache.mask_NHW[0].numpy(), wanted, atol=1e-5)
    torch.testing.assert_close(cache.mask_NHW[1::2], cache.mask_NHW[::2].flip(-1))
    prompts = ["", "a handsome man, looking left", "a handsome man, looking right", "a handsome man, smile"]
    assert cache.prompt_N.tolist() == [1, 2] * 3 + [3, 3] * 3
    torch.testing.assert_close(cache.prompts_PLD, encode_prompts(base, prompts))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_views_has_a_look_and_its_words(share: float) -> None:
    view, rng = photo().rgb_u8, np.random.default_rng(0)
    seen = dict.fromkeys(["", *LOOKS], 0)
    for _ in range(400):
        image, caption = random_look(view, "a girl, children", share, rng)
        look = caption.removeprefix("a girl, children").removeprefix(", ")
        seen[look] += 1
        assert np.array_equal(image, put_look(view, look) if look else view)
    assert seen.pop("") == pytest.approx((1 - share) * 400, abs=40)
    assert list(seen.values()) == pytest.approx([share * 400 / len(LOOKS)] * len(LOOKS), abs=25)


def test_a_look_takes_the_colours_it_hides_out_of_the_caption() -> None:
    caption = "a girl, black hair, green background, smile"
    seen = {random_look(photo().rgb_u8, caption, 1.0, np.random.default_rng(seed))[1] for seed in range(60)}
    assert "a girl, smile, duotone" in seen
    assert "a girl, black hair, green background, smile, warm film photo" in seen


def test_the_words_of_a_look_are_read_by_the_text_encoder(base: StableDiffusionPipeline) -> None:
    caption = "a girl, " + ", ".join(["smile"] * 40)
    reads = partial(fits, base.tokenizer)
    assert not reads(caption)
    for seed in range(4):
        _, looked = random_look(photo().rgb_u8, caption, 1.0, np.random.default_rng(seed), reads)
        assert looked.endswith(tuple(LOOKS))
        assert looked.startswith("a girl, ")
        assert reads(looked)


def test_latents_are_those_of_the_autoencoder_scaled_for_the_denoiser(base: StableDiffusionPipeline) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8) for seed in range(18)]
    mean, std = encode_images(base, images)
    pixels = base.image_processor.preprocess(images[17][None] / np.float32(255))
    with torch.no_grad():
        latents = base.vae.encode(pixels).latent_dist
    scale = base.vae.config.scaling_factor
    torch.testing.assert_close(mean[17], latents.mean[0] * scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std[17], latents.std[0] * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prompt", ["", "a handsome man, smile", "portrait " * 60])
def test_prompts_are_embedded_as_the_pipeline_does(base: StableDiffusionPipeline, prompt: str) -> None:
    wanted, _ = base.encode_prompt(prompt, "cpu", 1, False)
    torch.testing.assert_close(encode_prompts(base, ["a man", prompt])[1:], wanted, rtol=1e-4, atol=1e-5)


def test_the_same_generator_gives_the_same_cache(base: StableDiffusionPipeline) -> None:
    first, again, other = (
        build_cache(base, [photo()], 2, (0.62, 0.78), np.random.default_rng(seed)).mean_NCHW for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_hash_of_a_photo_depends_on_all_the_trainer_reads() -> None:
    one = photo()
    copied = TrainingPhoto(one.rgb_u8[:, ::-1].copy()[:, ::-1], one.mask.copy(), one.caption)
    assert copied.sha256 == one.sha256
    pixels, mask = one.rgb_u8.copy(), one.mask.copy()
    pixels[3, 4, 1] ^= 1
    mask[3, 4] += 0.5
    others = [replace(one, rgb_u8=pixels), replace(one, mask=mask), replace(one, caption="a handsome man")]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 4


def test_left_and_right_change_places_as_words_only() -> None:
    assert flipped_caption("a mature man, looking left, smile") == "a mature man, looking right, smile"
    assert flipped_caption("right hand,left hand") == "left hand,right hand"
    assert flipped_caption("Wright, bright, leftover, a,b") == "Wright, bright, leftover, a,b"


@given(st.text(alphabet="left righ,-"))
def test_flipping_a_caption_twice_gives_it_back(caption: str) -> None:
    assert flipped_caption(flipped_caption(caption)) == caption


@pytest.mark.parametrize("face_ratio", [(0.9, 0.3), (0.0, 0.5), (0.5, 1.5)])
def test_impossible_shares_of_the_face_are_refused_before_any_work(face_ratio: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match=r"face_lora\.view_face_ratio.*wanted 0 < least <= largest <= 1"):
        StudioSettings.load(None, {"albums": "a", "out": "b", "face_lora": {"view_face_ratio": face_ratio}})
