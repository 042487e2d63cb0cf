"""What a program says of itself, so that a file found alone on a disk explains how to call it.

A flat mapping of texts, the same in every format: metadata_props of an ONNX file, user-defined metadata of a Core ML
package, constant methods of an ExecuTorch program (with `_` for `.`). Lists are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from kind_core.classes import ClassInfo
from kind_core.files.json_files import parse_json
from kind_core.samplers import Sampling
from kind_runtimes.manifest import NOISE_GENERATOR, Manifest, ProgramSpec, TensorSpec

PREFIX = "kind."
_ABOUT_VERSION = 1
# the order in which a reader wants them
_ORDER = """
    program how_to_call inputs outputs functions classes steps guided_steps sampler guidance_scale initial_noise_scale
    noise_generator author licence version format
"""
# what a manifest must say as its programs do
_FACTS = ("steps", "guided_steps", "sampler", "initial_noise_scale", "noise_generator", "classes")
_LISTS = ("inputs", "outputs", "classes", "guided_steps", "functions")
DESCRIPTIONS = {
    "latents": "latents of the step before; before the first, start noise times initial_noise_scale",
    "history": "what the sampler keeps of the step before; before the first, zeros",
    "step_index": "which step, from 0",
    "class_index": "which of the classes, from 0",
    "guidance": "guidance scale; 1 is none",
    "text": "embedded words of the caption, then of the null one",
    "text_mask": "1 for the words that are read",
    "tailor": "of the class's pack; zeros for no class",
    "modulation_basis": "of the class's pack; zeros for no class",
    "modulation_coefficients": "of the class's pack; zeros for no class",
    "next_latents": "latents for the next step, or for decode after the last",
    "next_history": "history for the next step",
    "image": "RGB picture, 0 to 1 as floats, 0 to 255 as an image",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What the programs of an export have in common. A base has no classes: they come as packs."""

    classes: tuple[ClassInfo, ...]
    sampling: Sampling
    author: str = ""
    licence: str = ""

    def describe(
        self,
        program: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        functions: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The texts of one program, in the order of their keys.

        `functions` are those of its file where it has several, by class id or by program.
        """
        sampling = self.sampling
        texts = {
            "format": str(_ABOUT_VERSION),
            "version": version("kind-diffusion"),
            "program": program,
            "how_to_call": self.explain(program, inputs, functions or {}),
            "inputs": json.dumps([one.to_dict() for one in inputs]),
            "outputs": json.dumps([one.to_dict() for one in outputs]),
            "classes": json.dumps([{"id": c.id, "names": list(c.names)} for c in self.classes], ensure_ascii=False),
            "steps": str(sampling.steps),
            "sampler": sampling.sampler,
            "guidance_scale": f"{sampling.guidance_scale:g}" if sampling.takes_guidance else "",
            "initial_noise_scale": f"{sampling.initial_noise_scale:.9g}",
            "noise_generator": NOISE_GENERATOR,
            "guided_steps": "" if sampling.guided_steps is None else json.dumps(list(sampling.guided_steps)),
            "functions": json.dumps(dict(functions)) if functions else "",
            "author": self.author,
            "licence": self.licence,
        }
        return {f"{PREFIX}{name}": text for name, text in sorted(texts.items()) if text}

    def explain(self, program: str, inputs: Sequence[TensorSpec], functions: Mapping[str, str]) -> str:
        """One sentence: the loop that calls a program."""
        names = [spec.name for spec in inputs]
        call = f"{program}({', '.join(names)})"
        if program == "decode":
            return f"image = {call}, with the latents after the last step"
        state = ", ".join(name for name in names if name in ("latents", "history"))
        history = ", history = zeros" if "history" in names else ""
        loop = (
            f"latents = start noise * {self.sampling.initial_noise_scale:g}{history}; "
            f"for step_index 0 to {self.sampling.steps - 1}: {state} = {call}"
        )
        if "step_unguided" in functions:
            return f"{loop}; in steps that are not in guided_steps by the function step_unguided, without guidance"
        return f"{loop}, by the function of the class" if functions else loop


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDescription:
    """What a program file says of itself: its texts, and inputs and outputs as its runtime reads them."""

    texts: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def parse_about(texts: Mapping[str, str]) -> dict[str, object]:
    """The texts of `describe` without their prefix, lists parsed, in reading order; empty where a file has none."""
    found = {name.removeprefix(PREFIX): text for name, text in texts.items() if name.startswith(PREFIX)}
    places = {name: place for place, name in enumerate(_ORDER.split())}
    names = sorted(found, key=lambda name: (places.get(name, len(places)), name))
    return {name: _parse_list(found[name]) if name in _LISTS else found[name] for name in names}


def describe_manifest(manifest: Manifest) -> About:
    """What the programs of a bundle should say of themselves."""
    classes = () if manifest.pack_base is not None else manifest.classes
    return About(classes=classes, sampling=manifest.sampling)


def find_disagreement(texts: Mapping[str, str], about: About, spec: ProgramSpec) -> str | None:
    """In what a program and the manifest that lists it contradict each other, in words; None where they agree.

    A program without texts says nothing. The default guidance scale is left to the manifest: any may be given.
    """
    said = about.describe(spec.name, spec.inputs, spec.outputs)
    is_same_program = texts.get(f"{PREFIX}program") == spec.name  # a file of several describes its first
    for name in (*_FACTS, *(("inputs", "outputs") if is_same_program else ())):
        key = f"{PREFIX}{name}"
        held, listed = texts.get(key, ""), said.get(key, "")
        if f"{PREFIX}steps" in texts and held != listed:
            return f"it says {name} {held or 'all'}, the manifest {listed or 'all'}"
    return None


def _parse_list(text: str) -> object:
    try:
        return parse_json(text)
    except ValueError:
        return text  # written by somebody else: shown as it is
