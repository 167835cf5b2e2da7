"""LoRA files made to harm whoever opens them: each is refused at once, and nothing in it is run."""

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from studiolo.errors import SettingsError, TrainingError, WeightsError
from studiolo.generation.adapters import Adapters
from studiolo.portraits.styles import load_style
from studiolo.storage.store import Store
from studiolo.training.checkpoints import UnitCheckpoint, load_checkpoint
from studiolo.training.face_lora import read_factors
from tests.generation.conftest import LoraFile

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def adapters(base: Any) -> Adapters:
    return Adapters(base)


class Program:
    """Unpickled, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def pickles(trace: Path, folder: Path) -> dict[str, Path]:
    """The same program in every way that LoRAs and checkpoints have been shared, under any name."""
    program, files = Program(trace), {}
    for suffix in (".safetensors", ".bin", ".pt", ".ckpt"):
        files[f"plain{suffix}"] = folder / f"plain{suffix}"
        files[f"plain{suffix}"].write_bytes(pickle.dumps({LAYER: program}))
        files[f"torch{suffix}"] = folder / f"torch{suffix}"
        torch.save({f"{LAYER}.lora_A.weight": program}, files[f"torch{suffix}"])
    return files


def test_a_pickle_is_never_run(adapters: Adapters, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for name, path in pickles(trace, tmp_path).items():
        with pytest.raises(WeightsError):
            adapters.mix([(str(path), 1.0)])
        with pytest.raises(WeightsError):
            read_factors(path)
        with pytest.raises(TrainingError):
            load_checkpoint(path)
        if not name.endswith(".safetensors"):
            (tmp_path / "evil.json").write_text(json.dumps({"model_id": ".", "bin_file": name}))
            with pytest.raises(SettingsError, match="others can run code"):
                load_style("evil", tmp_path)
    store = Store(tmp_path / "store")
    checkpoint = UnitCheckpoint(store, "x.checkpoint", "key", 1.0)
    saved = (tmp_path / "torch.pt").read_bytes()
    store.write_bytes("x.checkpoint", checkpoint._digest(saved) + saved)
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load()
    assert not trace.exists()
    pickle.loads((tmp_path / "plain.bin").read_bytes())
    assert trace.exists()  # it would have


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: list[int], *offsets: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\1\0\0",
    "a length of 2**63": file_of({}, length=2**63),
    "a length beyond the file": file_of({}, length=10_000),
    "a length of 0": file_of(b""),
    "no JSON": file_of(b"{" * 1000),
    "a list": file_of([1]),
    "nested 100,000 deep": file_of(b'{"__metadata__":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001),
    "no text": file_of(b'{"\xff\xfe": 1}'),
    "a tensor beyond the file": file_of({A: tensor([4, 32], 0, 512)}, b"x" * 100),
    "tensors over one another": file_of({A: tensor([1, 32], 0, 128), B: tensor([32, 1], 64, 192)}, b"x" * 192),
    "a hole": file_of({A: tensor([1, 32], 0, 128), B: tensor([32, 1], 256, 384)}, b"x" * 384),
    "offsets backwards": file_of({A: tensor([1, 32], 128, 0)}, b"x" * 128),
    "a shape of 2**62": file_of({A: tensor([2**31, 2**31], 0, 128)}, b"x" * 128),
    "a negative shape": file_of({A: tensor([-1, -32], 0, 128)}, b"x" * 128),
    "a dtype that is none": file_of({A: tensor([1, 32], 0, 128, dtype="PICKLE")}, b"x" * 128),
    "no rank": file_of({A: tensor([0, 32], 0, 0), B: tensor([32, 0], 0, 0)}),
    "no shape": file_of({A: tensor([], 0, 4), B: tensor([], 4, 8)}, b"x" * 8),
    "numbers for metadata": file_of({"__metadata__": {"format": 1}, A: tensor([1, 32], 0, 128)}, b"x" * 128),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies_is_refused(adapters: Adapters, tmp_path: Path, what: str) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(HEADERS[what])
    began_s = time.monotonic()
    with pytest.raises(WeightsError, match=r"lora\.safetensors"):
        adapters.mix([(str(path), 1.0)])
    assert time.monotonic() - began_s < 30


CONFIGS: dict[str, Any] = {
    "no JSON": "{",
    "a list": "[1]",
    "words for alpha": json.dumps({"unet.r": 4, "unet.lora_alpha": "much"}),
    "a list for patterns": json.dumps({"unet.r": 4, "unet.alpha_pattern": ["to_q"]}),
    "nested deep": "[" * 100_000,
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_configuration_that_is_none_is_refused(adapters: Adapters, lora_file: LoraFile, what: str) -> None:
    path = lora_file("a", 1, metadata={"lora_adapter_metadata": CONFIGS[what]})
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        adapters.mix([(str(path), 1.0)])


def test_a_configuration_is_not_run_as_a_pattern(adapters: Adapters, lora_file: LoraFile) -> None:
    """As a regular expression it would be tried for longer than anybody waits."""
    config = {"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {r"(([a-z_0-9]+\.?)+)+!": 1}}
    path, plain = lora_file("a", 1), lora_file("plain", 1)
    save_file(load_file(path), path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    began_s = time.monotonic()
    found, wanted = (adapters.mix([(str(one), 1.0)]).unet for one in (path, plain))
    assert time.monotonic() - began_s < 60
    assert all(torch.equal(found[name][1], wanted[name][1]) for name in wanted)


def odd_tensors(change: Callable[[dict[str, torch.Tensor]], None], path: Path) -> Path:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    return path


def test_tensors_of_odd_kinds_are_refused(adapters: Adapters, lora_file: LoraFile) -> None:
    def flat(weights: dict[str, torch.Tensor]) -> None:
        weights[min(weights)] = torch.zeros(5)

    def deep(weights: dict[str, torch.Tensor]) -> None:
        weights[min(weights)] = torch.zeros(1, 1, 1, 1, 1, 1)

    for number, change in enumerate((flat, deep)):
        with pytest.raises(WeightsError):
            adapters.mix([(str(odd_tensors(change, lora_file(f"odd{number}", 1))), 1.0)])
