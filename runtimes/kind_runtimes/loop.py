"""The loop that an app writes: start noise, `step` for each step index, `decode`. No scheduler is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from kind_core.errors import BundleError
from kind_core.noise import start_noise
from kind_core.samplers import Sampling
from kind_runtimes.about import About, find_disagreement
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, Arrays, EngineOptions, Program, engine_errors, open_program
from kind_runtimes.manifest import ProgramSpec, TargetSpec
from kind_runtimes.packs import Pack, pack_inputs

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    """The opened programs of one target, and how they are called: all that drawing takes.

    `spec` is that of `step`. `class_index` counts the classes that the programs hold. A base holds none: `with_pack`
    attaches one, which is then class 0; without a pack, 0 is the learngene alone. Nothing is opened or built anew, and
    the base stays as it is.
    """

    sampling: Sampling
    latents_shape: tuple[int, ...]
    spec: ProgramSpec
    step: Program
    decode: Program | None
    step_unguided: Program | None = None
    pack: Pack | None = None
    attached: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # in the dtype of the program's inputs, once: every step takes them
        object.__setattr__(self, "attached", pack_inputs(self.pack, self.spec.inputs))

    @classmethod
    def of(cls, loop: Loop, **more: Any) -> Self:
        """`loop` as one of this class, with what the class has `more`."""
        return cls(**{one.name: getattr(loop, one.name) for one in fields(Loop)}, **more)

    def with_pack(self, pack: Pack) -> Self:
        """The same programs with `pack` attached; raises BundleError when its tensors do not fit them."""
        return replace(self, pack=pack)

    def without_pack(self) -> Self:
        """The same programs with no class attached: the learngene alone."""
        return replace(self, pack=None)

    def latents(
        self, class_index: int, seed: int, guidance: float | None = None, on_step: OnStep | None = None
    ) -> np.ndarray:
        """Latents of one picture, float32 of `latents_shape`."""
        noise = start_noise(seed, self.latents_shape)
        *_, latents = self.trajectory(noise, class_index, guidance, on_step)
        return latents

    def trajectory(
        self, noise: np.ndarray, class_index: int, guidance: float | None = None, on_step: OnStep | None = None
    ) -> Iterator[np.ndarray]:
        """The latents after each step, from start noise of unit variance."""
        steps = self.sampling.steps
        scale = self.sampling.guidance_scale if guidance is None else guidance
        state = {"latents": (noise * self.sampling.initial_noise_scale).astype(np.float32)}
        if "history" in self.input_names:
            state["history"] = np.zeros_like(state["latents"])
        for index in range(steps):
            outputs = self.run_step({**state, **self.choose_class(class_index)}, index, scale)
            # outputs are called next_latents and next_history: no format lets an output share its input's name
            state = {name.removeprefix("next_"): value for name, value in outputs.items()}
            if on_step is not None:
                on_step(index + 1, steps)
            yield state["latents"]

    def run_step(self, inputs: Mapping[str, np.ndarray], index: int, guidance: float) -> Arrays:
        """Step `index` from the latents, the history and the class in `inputs`, by the program that it takes."""
        chosen = {**inputs, "step_index": np.array([index], np.int32)}
        if self.step_unguided is not None and not self.sampling.guided[index]:
            with engine_errors(f"step_unguided {index} fails in {self.step.engine}"):
                return self.step_unguided(chosen)
        if self.sampling.takes_guidance:
            chosen["guidance"] = np.array([guidance], np.float32)
        with engine_errors(f"step {index} fails in {self.step.engine}"):
            return self.step(chosen)

    def choose_class(self, class_index: int) -> Mapping[str, np.ndarray]:
        """The inputs of `step` that say which class is drawn; a program of several functions picks one by it."""
        if "class_index" in self.input_names or self.spec.class_functions is not None:
            return {"class_index": np.array([class_index], np.int32)}
        if class_index != 0:
            raise ValueError(f"class_index is {class_index}, but a base has one class at a time: 0")
        return self.attached

    def picture(
        self, class_index: int, seed: int, guidance: float | None = None, on_step: OnStep | None = None
    ) -> np.ndarray:
        """One picture, uint8 (height, width, 3)."""
        return self.decode_picture(self.latents(class_index, seed, guidance, on_step))

    def decode_picture(self, latents: np.ndarray) -> np.ndarray:
        """The picture of latents, uint8 (height, width, 3)."""
        assert self.decode is not None, "the bundle has no decode program"
        with engine_errors(f"decode fails in {self.step.engine}"):
            return to_pixels(self.decode({"latents": latents})["image"])

    @property
    def input_names(self) -> set[str]:
        """Names of the inputs of `step`; the same for every target."""
        return {spec.name for spec in self.spec.inputs}


def open_loop(folder: Path, target: TargetSpec, about: About, latents_shape: tuple[int, ...]) -> Loop:
    """Open the programs of a target that lie in `folder`, and run what of them is code.

    Raises BundleError where a program contradicts `about` in what it says of itself, or would end this process.
    """
    return make_loop(folder, target, open_programs(folder, target), about, latents_shape)


def open_programs(
    folder: Path, target: TargetSpec, options: EngineOptions = DEFAULT_OPTIONS, *, is_expendable: bool = False
) -> dict[str, Program]:
    """The programs of a target by name; see `open_program`."""
    return {
        name: open_program(target.target, folder / spec.file, spec, options, is_expendable=is_expendable)
        for name, spec in target.programs.items()
    }


def make_loop(
    folder: Path, target: TargetSpec, programs: Mapping[str, Program], about: About, latents_shape: tuple[int, ...]
) -> Loop:
    """The loop over opened programs; raises BundleError where one contradicts `about` in what it says of itself."""
    for name, spec in target.programs.items():
        disagreement = find_disagreement(getattr(programs[name], "texts", {}), about, spec)
        if disagreement is not None:
            raise BundleError(
                f"{folder / spec.file} is no program of this bundle: {disagreement}", "copy or export the bundle again"
            )
    return Loop(
        sampling=about.sampling,
        latents_shape=latents_shape,
        spec=target.programs["step"],
        step=programs["step"],
        decode=programs.get("decode"),
        step_unguided=programs.get("step_unguided"),
    )


def to_pixels(image: np.ndarray) -> np.ndarray:
    """A decoded image, float (1, 3, height, width) in [0, 1] or already uint8, as uint8 (height, width, 3)."""
    if image.dtype == np.uint8:
        return image
    pixels: np.ndarray = np.rint(np.clip(image[0], 0, 1) * 255).astype(np.uint8)
    return pixels.transpose(1, 2, 0)
