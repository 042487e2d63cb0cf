"""One optimiser step of KIND against its dense twin and against diffusers' DiT trained plainly, interleaved in one run.

    python tests/benchmarks/train_step.py                                    # CPU, a small shape
    python tests/benchmarks/train_step.py --presets kind-b/2 --blocks 2      # CPU, the width of the paper's
    python tests/benchmarks/train_step.py --device cuda --presets kind-b/2 kind-l/2 --compile
    python tests/benchmarks/train_step.py --classes 40 1000                  # does a step cost more with more classes?

A step is all of `kind-train fit`: reading the batch, noise, forward, backward, clipping, AdamW and EMA, on random
latents; bf16 autocast on a GPU, fp32 on a CPU. (a) is our dense DiT of the same shape with the same options, (b)
diffusers' `DiTTransformer2DModel` with torch's AdamW and diffusers' EMAModel in the ordinary loop. All run at one batch
size, the largest up to --batch that fits all of them on a GPU.

Each round runs --steps of each; ratios are those of a round, their median and range are printed. A CPU is timed on one
thread by the CPU time of the process, which other work on the machine changes less than the clock. Utilisation: FLOPs
that the chosen forms execute (2 x MAC with attention, backward twice the forward) against --peak-tflops.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.config import DiffusionConfig, DiTConfig, preset
from kind_core.flops import count_flops
from kind_train.config import TrainConfig
from kind_train.data.photo_set import Draw
from kind_train.run.forms import GROUPS, read_forms
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape

# `kind-s/2` with a quarter of its blocks.
SMALL = DiTConfig(
    sample_size=32, patch_size=2, in_channels=4, hidden_size=384, depth=3, num_heads=6, num_classes=40,
    learngene_rank=159, tailor_rank=3, learn_sigma=True,
)  # fmt: skip
OURS, DENSE, PLAIN = "KIND", "dense twin", "diffusers"
Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomLatents:
    """Latents of no photos, for timing."""

    images: Tensor
    labels: Tensor
    classes: tuple[ClassInfo, ...]

    @classmethod
    def draw(cls, dit: DiTConfig, count: int) -> RandomLatents:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(count, dit.in_channels, dit.sample_size, dit.sample_size, generator=generator)
        labels = torch.randint(dit.num_classes, (count,), generator=generator)
        classes = tuple(ClassInfo(id=f"class_{i}", names=(f"class {i}",)) for i in range(dit.num_classes))
        return cls(images=images.half(), labels=labels, classes=classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 4, self.images.shape[2], self.images.shape[3]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        return self.images[indices]

    def to_input(self, stored: Tensor, draw: Draw) -> Tensor:
        return stored.float()

    def select(self, indices: Tensor) -> RandomLatents:
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--presets", nargs="*", default=["small"])
    parser.add_argument("--blocks", type=int, help="keep only so many blocks of a preset")
    parser.add_argument("--batch", type=int, help="[8 on a CPU, up to 256 on a GPU]")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of each in a round")
    parser.add_argument("--compile", action="store_true", help="torch.compile for KIND and its dense twin")
    parser.add_argument("--compile-plain", action="store_true", help="and for diffusers' model")
    parser.add_argument("--classes", type=int, nargs=2, help="compare two numbers of classes instead")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU in bf16, dense [H100, H200]")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device != "cpu":
        print(torch.cuda.get_device_name(arguments.device), torch.__version__)
    for name in arguments.presets:
        dit = SMALL if name == "small" else preset(name)[0]
        dit = replace(dit, depth=arguments.blocks or dit.depth)
        compare_classes(name, dit, arguments) if arguments.classes else compare_models(name, dit, arguments)


def compare_models(name: str, dit: DiTConfig, arguments: argparse.Namespace) -> None:
    """Print images a second of the three, and the ratios."""
    makers: dict[str, Callable[[int], Step]] = {
        OURS: lambda batch: make_trainer_step(dit, batch, arguments),
        DENSE: lambda batch: make_trainer_step(twin(dit), batch, arguments),
        PLAIN: lambda batch: make_plain_step(dit, batch, arguments),
    }
    batch = find_batch(makers, arguments)
    steps = {key: make(batch) for key, make in makers.items()}
    times = time_interleaved(steps, arguments)
    print(f"{name}, {dit.depth} blocks, batch {batch}, {arguments.device}, compile {arguments.compile}, "
          f"{arguments.rounds} rounds of {arguments.steps} steps")  # fmt: skip
    for key, seconds in times.items():
        speed = [batch / s for s in seconds]
        print(f"  {key:11} {statistics.median(speed):9.1f} images/s ({min(speed):.1f} to {max(speed):.1f})")
    for key in (DENSE, PLAIN):
        ratios = [theirs / ours for theirs, ours in zip(times[key], times[OURS], strict=True)]
        print(f"  KIND / {key}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    trainer: Trainer = steps[OURS].__self__  # type: ignore[attr-defined]  # a bound method
    forms = read_forms(trainer.model).tolist()
    thin = ", ".join("/".join(names) for names, is_thin in zip(GROUPS, forms, strict=True) if is_thin)
    work = {OURS: executed_flops(dit, forms), DENSE: count_flops(twin(dit), convention="full").total}
    print(f"  thin: {thin or 'none'}; forward FLOPs {work[OURS] / work[DENSE]:.3f} of the dense twin's")
    if arguments.device != "cpu":
        for key, flops in work.items():
            share = 3 * flops * batch / statistics.median(times[key]) / (arguments.peak_tflops * 1e12)
            print(f"  {key}: {share:.1%} of {arguments.peak_tflops:g} TFLOP/s")
        print(f"  peak memory of all three together {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def compare_classes(name: str, dit: DiTConfig, arguments: argparse.Namespace) -> None:
    """Print the step time at two numbers of classes and the ratio."""
    batch = arguments.batch or 8
    steps = {
        f"{count} classes": make_trainer_step(replace(dit, num_classes=count), batch, arguments)
        for count in arguments.classes
    }
    few, many = time_interleaved(steps, arguments).values()
    ratios = [m / f for m, f in zip(many, few, strict=True)]
    for key, seconds in zip(steps, (few, many), strict=True):
        print(f"{name}, batch {batch}: {key}: {statistics.median(seconds) * 1e3:.1f} ms a step")
    print(f"  ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def find_batch(makers: dict[str, Callable[[int], Step]], arguments: argparse.Namespace) -> int:
    """The largest batch at which every model takes a step while all of them are loaded."""
    batch: int = arguments.batch or (8 if arguments.device == "cpu" else 256)
    while arguments.device != "cpu":
        try:
            for step in [make(batch) for make in makers.values()]:
                step()
            torch.cuda.synchronize()
            break
        except torch.OutOfMemoryError:
            batch //= 2
        finally:
            torch.cuda.empty_cache()
    return batch


def make_trainer_step(dit: DiTConfig, batch: int, arguments: argparse.Namespace) -> Step:
    """`Stepper.take`, told the next step number each time."""
    shape = Shape(dit=dit, diffusion=DiffusionConfig())
    photos = RandomLatents.draw(dit, max(4 * batch, 2 * dit.num_classes))
    output = Path(tempfile.mkdtemp()) / "run"
    config = TrainConfig(
        data="random", output=str(output), device=arguments.device, batch_size=batch, images=10**9,
        compile=arguments.compile,
    )  # fmt: skip
    return Counting(config, photos, photos, shape=shape).advance


class Counting(Trainer):
    def advance(self) -> None:
        self.stepper.take(self.step)
        self.step += 1


def make_plain_step(dit: DiTConfig, batch: int, arguments: argparse.Namespace) -> Step:
    """diffusers' model in the loop of its training examples."""
    from diffusers import DDPMScheduler, DiTTransformer2DModel
    from diffusers.training_utils import EMAModel

    device = torch.device(arguments.device)
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=dit.num_heads, attention_head_dim=dit.hidden_size // dit.num_heads,
        in_channels=dit.in_channels, out_channels=dit.out_channels, num_layers=dit.depth, sample_size=dit.sample_size,
        patch_size=dit.patch_size, num_embeds_ada_norm=dit.num_classes,
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    average = EMAModel(model.parameters(), decay=0.9999)
    scheduler = DDPMScheduler(beta_schedule="linear")
    photos = RandomLatents.draw(dit, 4 * batch)
    forward = torch.compile(model) if arguments.compile_plain else model

    def step() -> None:
        chosen = torch.randint(len(photos), (batch,))
        latents, labels = photos.images[chosen].float().to(device), photos.labels[chosen].to(device)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (batch,), device=device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
            output = forward(noisy, timestep=timesteps, class_labels=labels, return_dict=False)[0]
        loss = torch.nn.functional.mse_loss(output[:, : dit.in_channels].float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(model.parameters())

    return step


def time_interleaved(steps: dict[str, Step], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step, by round; the order turns from round to round."""
    times: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(5 if arguments.compile else 2):
        for step in steps.values():
            step()
    for number in range(arguments.rounds):
        for key, step in rotated(steps, number):
            start_s = read_clock(arguments.device)
            for _ in range(arguments.steps):
                step()
            times[key].append((read_clock(arguments.device) - start_s) / arguments.steps)
    return times


def rotated(steps: dict[str, Step], number: int) -> Iterator[tuple[str, Step]]:
    items = list(steps.items())
    shift = number % len(items)
    yield from items[shift:] + items[:shift]


def read_clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def executed_flops(dit: DiTConfig, forms: list[int]) -> float:
    """2 x MAC of one forward pass of a sample in the forms that run; a materialised W_G is a dense product."""
    assert dit.learngene_rank is not None
    total = count_flops(twin(dit), convention="full").total
    for names, is_thin in zip(GROUPS, forms, strict=True):
        for name in names:
            out, into = dit.matrix_shapes[name]
            rank = max(dit.ranks) + (dit.learngene_rank if is_thin else 0)
            products = rank * (out + into) - (out * into if is_thin else 0)
            total += 2 * dit.num_tokens * dit.depth * products
    return total


def twin(dit: DiTConfig) -> DiTConfig:
    return replace(dit, learngene_rank=None, tailor_rank=0, tailor_ranks=None)


if __name__ == "__main__":
    main()
