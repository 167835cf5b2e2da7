"""LoRAs of strangers: what is taken is read as the real reader reads the original, all else is refused unread."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from studiolo.errors import UnacceptableError, WeightsError
from studiolo.generation.adapters import Adapters, Factors
from studiolo.generation.base import load_base, save_pipeline
from studiolo.generation.grouped import matrix_shape
from studiolo.generation.lora_files import Layers, base_layers, inspect_lora
from studiolo.generation.tiny import tiny_base
from studiolo.weights.fetch import pull
from tests.generation.test_hostile_loras import HEADERS, file_of
from tests.loras import Tensors, attention, changed, diffusers, file, kohya

MAX_RANK = 16


def layers_by_torch(base: StableDiffusionPipeline) -> dict[str, tuple[int, int]]:
    """Every layer that the real reader would take."""
    parts = {"unet.": base.unet, "text_encoder.": base.text_encoder}
    shapes = {
        prefix + name: matrix_shape(module) for prefix, part in parts.items() for name, module in part.named_modules()
    }
    return {
        name.replace("text_encoder.text_model.", "text_encoder."): shape
        for name, shape in shapes.items()
        if shape is not None
    }


@pytest.fixture(scope="module")
def layers(base: StableDiffusionPipeline) -> Layers:
    return layers_by_torch(base)


def inspected(content: bytes, layers: Layers, max_rank: int = MAX_RANK) -> bytes:
    return inspect_lora(io.BytesIO(content), layers, max_rank).content


def read(adapters: Adapters, content: bytes, folder: Path) -> Factors:
    path = folder / "lora.safetensors"
    path.write_bytes(content)
    return adapters.mix([(str(path), 1.0)])


def same(one: Factors, other: Factors) -> None:
    for a, b in ((one.unet, other.unet), (one.text, other.text)):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name][0], b[name][0])
            torch.testing.assert_close(a[name][1], b[name][1])


def test_a_bases_layers_are_those_that_the_reader_takes(tmp_path: Path, layers: Layers) -> None:
    save_pipeline(tiny_base(), tmp_path)
    assert base_layers(tmp_path) == layers
    embedded = pull("embedded-base")
    assert base_layers(embedded) == layers_by_torch(load_base(embedded))
    with pytest.raises(WeightsError, match="got no unet"):
        base_layers(tmp_path / "unet")


LAYOUTS: dict[str, Callable[[Layers], bytes]] = {
    "kohya": lambda layers: file(kohya(attention(layers))),
    "kohya without alphas": lambda layers: file(kohya(attention(layers), alpha=None)),
    "kohya with whole alphas": lambda layers: changed(
        kohya(attention(layers)), lambda t: t.update({n: np.asarray(2) for n in t if n.endswith(".alpha")})
    ),
    "kohya in halves": lambda layers: file({n: t.astype(np.float16) for n, t in kohya(attention(layers)).items()}),
    "kohya with convolutions": lambda layers: changed(
        kohya(attention(layers, ("proj_in", "proj_out", "to_q"))),
        lambda t: t.update({n: v[..., None, None] for n, v in t.items() if "_proj_" in n and v.ndim == 2}),
    ),
    "kohya with the text encoder": lambda layers: file(
        kohya(attention(layers) | {n: s for n, s in layers.items() if "self_attn" in n or "mlp" in n})
    ),
    "diffusers": lambda layers: file(diffusers(attention(layers))),
    "peft": lambda layers: file(diffusers(attention(layers), sides=("lora_A", "lora_B"))),
    "peft with an alpha": lambda layers: file(
        diffusers(attention(layers), sides=("lora_A", "lora_B")), {"unet.r": 4, "unet.lora_alpha": 8}
    ),
    "peft with alphas of layers": lambda layers: file(
        diffusers(attention(layers), sides=("lora_A", "lora_B")),
        {
            "unet.r": 4,
            "unet.lora_alpha": 8,
            "unet.use_rslora": True,
            "unet.alpha_pattern": {"to_v": 3, "attn1.to_q": 1},
        },
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_kept_is_read_as_what_was_sent(
    base: StableDiffusionPipeline, layers: Layers, tmp_path: Path, layout: str
) -> None:
    sent, adapters = LAYOUTS[layout](layers), Adapters(base)
    kept = inspected(sent, layers)
    same(read(adapters, kept, tmp_path), read(adapters, sent, tmp_path))
    assert inspected(kept, layers) == kept
    with safe_open(tmp_path / "lora.safetensors", framework="np") as opened:
        assert opened.keys()


def test_every_layer_of_a_base_may_be_changed(base: StableDiffusionPipeline, layers: Layers, tmp_path: Path) -> None:
    """By each spelling the same; diffusers itself does not read all of them in all."""
    kept = {inspected(file(tensors), layers) for tensors in (kohya(layers, alpha=4.0), diffusers(layers))}
    kept.add(inspected(file(diffusers(layers, sides=("lora_A", "lora_B"))), layers))
    (content,) = kept
    found = read(Adapters(base), content, tmp_path)
    names = {f"unet.{name}" for name in found.unet} | {f"text_encoder.{name}" for name in found.text}
    assert names == set(layers)


def test_bfloat16_is_widened(layers: Layers) -> None:
    tensors = kohya(attention(layers), alpha=None)
    cut = {name: (t.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, t in tensors.items()}
    header: dict[str, Any] = {}
    data = b""
    for name, values in sorted(cut.items()):
        begin = len(data)
        data += (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    assert inspected(file_of(header, data), layers) == inspected(file(cut), layers)


def test_nothing_but_numbers_is_kept(layers: Layers) -> None:
    """No metadata, no name of the sender's."""
    sent = file(kohya(attention(layers)), {"unet.r": "SECRET", "comment": "<script>"})
    kept = inspected(sent, layers)
    header = json.loads(kept[8 : 8 + int.from_bytes(kept[:8], "little")])
    assert "__metadata__" not in header
    assert {name.rsplit(".", 2)[0] for name in header} == set(attention(layers))
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    assert b"SECRET" not in kept


def first(tensors: Tensors, end: str) -> str:
    return min(name for name in tensors if name.endswith(end))


def put(end: str, values: Any) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[first(tensors, end)] = values

    return change


def infinite(tensors: Tensors) -> None:
    name = first(tensors, "lora_up.weight")
    tensors[name] = tensors[name].copy()
    tensors[name].flat[3] = np.inf


WRONG: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "no numbers": (lambda t: put("lora_down.weight", np.full((4, 32), np.nan, np.float32))(t), "no finite numbers"),
    "an infinite one": (infinite, "no finite numbers"),
    "whole numbers": (put("lora_down.weight", np.zeros((4, 32), np.int64)), "of type I64"),
    "bytes": (put("lora_down.weight", np.zeros((4, 32), np.uint8)), "of type 'U8'"),
    "a layer too narrow": (put("lora_down.weight", np.zeros((4, 16), np.float32)), "the base's layer is"),
    "two ranks": (put("lora_down.weight", np.zeros((5, 32), np.float32)), "the base's layer is"),
    "a window": (put("lora_down.weight", np.zeros((4, 32, 3, 3), np.float32)), "the base's layer is"),
    "half a pair": (lambda t: t.pop(first(t, "lora_up.weight")), "one of its two tensors"),
    "an alpha alone": (
        lambda t: [t.pop(first(t, f"lora_{side}.weight")) for side in ("up", "down")],
        "changes no layer",
    ),
    "an alpha that is a list": (put(".alpha", np.zeros(3, np.float32)), "is no number"),
    "an alpha that is none": (put(".alpha", np.asarray(np.nan, np.float32)), "no number up to"),
    "an endless alpha": (put(".alpha", np.asarray(1e30, np.float32)), "no number up to"),
    "a DoRA": (
        lambda t: t.update({"unet.mid_block.attentions.0.proj_in.dora_scale": np.ones(32)}),
        "no tensor of a LoRA",
    ),
    "a LoHa": (lambda t: t.update({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": np.ones(32)}), "no tensor"),
    "an embedding": (
        lambda t: t.update({"text_encoder.embeddings.token_embedding.lora_A.weight": np.ones((4, 32), np.float32)}),
        "no tensor of a LoRA",
    ),
    "another base's layer": (
        lambda t: t.update({"lora_unet_input_blocks_1.lora_up.weight": np.ones((4, 32), np.float32)}),
        "no tensor of a LoRA",
    ),
    "a name that climbs": (lambda t: t.update({"../../x.lora_A.weight": np.ones((4, 4), np.float32)}), "no tensor of"),
    "markup": (lambda t: t.update({"<b>\u202e": np.ones(4, np.float32)}), r"<b>\\u202e"),
    "the vae": (lambda t: t.update({"vae.x.lora_A.weight": np.ones((4, 4), np.float32)}), "no tensor of a LoRA"),
    "nothing": (lambda t: t.clear(), "changes no layer"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_lora_for_this_base_is_refused(layers: Layers, what: str) -> None:
    change, says = WRONG[what]
    with pytest.raises(UnacceptableError, match=says) as refused:
        inspected(changed(kohya(attention(layers)), change), layers)
    assert refused.value.reason == "lora"
    assert refused.value.sentence.isascii()
    assert len(refused.value.sentence) < 400


@pytest.mark.parametrize("what", HEADERS)
def test_headers_that_lie_are_refused(layers: Layers, what: str) -> None:
    with pytest.raises(UnacceptableError, match="cannot be used"):
        inspected(HEADERS[what], layers)


def test_what_else_a_file_may_not_have(layers: Layers) -> None:
    tensors = kohya(attention(layers), rank=5)
    with pytest.raises(UnacceptableError, match="has rank 5; at most 4 fit beside a face-LoRA"):
        inspected(file(tensors), layers, max_rank=4)
    with pytest.raises(UnacceptableError, match="header has"):
        inspected(file({**tensors, "x" * 3_000_000: np.zeros(1, np.float32)}), layers)
    twice = diffusers(attention(layers)) | diffusers(attention(layers), sides=("lora_A", "lora_B"))
    with pytest.raises(UnacceptableError, match="there twice, in two spellings"):
        inspected(file(twice), layers)
    plain = file(tensors)
    with pytest.raises(UnacceptableError, match="the file has"):
        inspected(plain + b"PK\3\4", layers)  # something else behind it
    start = 8 + int.from_bytes(plain[:8], "little")
    text = plain[8:start].rstrip()[:-1] + b',"__metadata__":{}}'  # a name twice, of which readers take one each
    with pytest.raises(UnacceptableError, match="no JSON"):
        inspected(len(text).to_bytes(8, "little") + text + plain[start:], layers)
    peft = diffusers(attention(layers), sides=("lora_A", "lora_B"))
    many = {"unet.alpha_pattern": {str(number): 1 for number in range(20_000)}}
    with pytest.raises(UnacceptableError, match="alpha_pattern"):
        inspected(file(peft, many), layers)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_change_of_a_file_is_more_than_refused(data: st.DataObject) -> None:
    """Bytes changed, cut out or put in, mostly in the header."""
    layers = {"unet.a.to_q": (8, 8), "text_encoder.b.q_proj": (8, 8)}
    content = bytearray(file(kohya(layers), {"unet.r": 4}))
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, header))
        match data.draw(st.integers(0, 2)):
            case 0:
                content[place] = data.draw(st.integers(0, 255))
            case 1:
                del content[place : place + data.draw(st.integers(1, 20))]
            case _:
                content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
    try:
        kept = inspected(bytes(content), layers)
    except UnacceptableError:
        return
    assert inspected(kept, layers) == kept
