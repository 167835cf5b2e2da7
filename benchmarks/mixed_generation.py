"""What does it gain that the LoRA belongs to the sample? Pictures a second of 8 identities with LoRAs of their own.

One side is the engine: all orders at once, 8 slots. The other is diffusers as published, identity by identity: load the
LoRA, make the pictures, unload it; (a) picture by picture at batch 1, (b) all pictures of an identity in one batch. The
same base, precision, prompts, steps and number of pictures, in turn in one process, after a warm-up of both.

    python -m benchmarks.mixed_generation [--quick] [--rounds N] [--steps N] [--base embedded|sd15]
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from diffusers.utils import logging as diffusers_logging

from benchmarks.report import write
from benchmarks.workloads import BASES, PlainDiffusers, open_base, seconds, write_loras
from studiolo.generation.engine import Engine, Order

SLOTS = 8
PROMPTS = ("a man, studio backdrop", "a smiling woman, warm film", "a woman, black and white photo", "a man, high key")


def main() -> None:
    """Time both sides in turn and report the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 identities, 2 steps: shows that it runs")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts; one takes eight minutes")
    parser.add_argument("--steps", type=int, default=30, help="of every picture")
    parser.add_argument("--base", choices=BASES, default="embedded", help="sd15 needs CUDA")
    arguments = parser.parse_args()
    identities, many, steps, rounds = (2, 2, 2, 1) if arguments.quick else (8, 8, arguments.steps, arguments.rounds)
    ratios, figures = {}, {"identities": identities, "steps": steps, "rounds": rounds, "base": arguments.base}
    diffusers_logging.set_verbosity_error()  # it says of each file that it has no part for the text encoder
    with tempfile.TemporaryDirectory() as folder:
        pipeline = open_base(arguments.base)
        loras = write_loras(pipeline, Path(folder), identities)
        plain, engine = PlainDiffusers(copy.deepcopy(pipeline)), Engine(pipeline, SLOTS)
        for make in _sides(plain, engine, loras[:1], 1).values():
            make(1)
        for each in (1, many):
            sides = _sides(plain, engine, loras, each)
            turns = [{name: make(steps) for name, make in sides.items()} for _ in range(rounds)]
            times = {name: sorted(turn[name] for turn in turns)[rounds // 2] for name in sides}
            pictures = identities * each
            figures[f"pictures_per_s_{each}_each"] = {
                name: round(pictures / time_s, 4) for name, time_s in times.items()
            }
            for name in sides.keys() - {"engine"}:
                ratios[f"engine_over_{name}_{each}_each"] = round(times[name] / times["engine"], 3)
    name = "mixed_generation" + ("" if arguments.base == "embedded" else f"-{arguments.base}")
    write(f"{name}-quick" if arguments.quick else name, ratios, figures)


def _sides(plain: PlainDiffusers, engine: Engine, loras: list[Path], each: int) -> dict[str, Callable[[int], float]]:
    """Seconds that each side takes for `each` pictures of every identity in some number of steps."""
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(len(loras))]

    def one_by_one(steps: int) -> float:
        started = time.monotonic()
        for lora, prompt in zip(loras, prompts, strict=True):
            for seed in range(each):
                plain(lora, [prompt], [seed], steps)
        return seconds(started)

    def identity_by_identity(steps: int) -> float:
        started = time.monotonic()
        for lora, prompt in zip(loras, prompts, strict=True):
            plain(lora, [prompt] * each, range(each), steps)
        return seconds(started)

    def together(steps: int) -> float:
        started = time.monotonic()
        orders = [
            Order(number, lora.stem, prompt, count=each, steps=steps, guidance_scale=3.0, face_lora=(str(lora), 1.0))
            for number, (lora, prompt) in enumerate(zip(loras, prompts, strict=True))
        ]
        for events in [engine.submit(order) for order in orders]:
            for _ in events:
                pass
        return seconds(started)

    sides: dict[str, Callable[[int], float]] = {"diffusers_batch_1": one_by_one, "engine": together}
    return sides if each == 1 else sides | {f"diffusers_batch_{each}": identity_by_identity}


if __name__ == "__main__":
    main()
