"""Lowered programs of tiny models, and faults seeded into them: what the mutation tests run the verifier on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eager_programs import Arrays, EagerProgram
from torch import Tensor, nn

from kind_core.checkpoint import Checkpoint
from kind_core.precisions import PrecisionName
from kind_core.samplers import Sampling
from kind_core.schedule import SamplerTable, read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets.programs import latents_shape, make_decode, make_step
from kind_export.targets.target import Lowering, Target, TargetOptions, load_target
from kind_export.verify.gates import Verifier
from kind_export.verify.parity import Parity
from kind_export.verify.reference import Reference
from kind_export.verify.trial import Trial
from kind_runtimes.engines.runtime import Program
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import ProgramSpec, TargetSpec
from tiny import tiny_config, tiny_model, tiny_model_config

STEPS = 4
GUIDANCE = 2.5


def make_reference(num_classes: int, steps: int = STEPS) -> Reference:
    """A sane trajectory: a cosine schedule and clean-image prediction, multistep."""
    dit = tiny_config(num_classes=num_classes, depth=1)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    checkpoint = Checkpoint(config=config, model=tiny_model(dit), sha256="")
    return Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=steps, guidance_scale=GUIDANCE))


def sampler_of(reference: Reference) -> SamplerTable:
    return read_sampler_table(
        reference.checkpoint.config.diffusion, reference.sampling.sampler, reference.sampling.steps
    )


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The right programs of a model for one target, lowered once; `verify` runs the gate on them or on a copy."""

    name: str
    target: Target
    options: TargetOptions
    reference: Reference
    verifier: Verifier
    compact: CompactModel
    folder: Path

    @classmethod
    def lower(cls, name: str, reference: Reference, folder: Path, precision: PrecisionName | None = None) -> Artifact:
        artifact = cls.prepare(name, Verifier(reference), folder, precision)
        for lowering in artifact.lowerings():
            artifact.target.lower(lowering, artifact.file(lowering, folder), artifact.options)
        return artifact

    @classmethod
    def prepare(
        cls, name: str, verifier: Verifier, folder: Path = Path(), precision: PrecisionName | None = None
    ) -> Artifact:
        """The same before anything is lowered."""
        target, reference = load_target(name), verifier.reference
        compact = rewrite(reference.checkpoint.model, sampler_of(reference), RewriteOptions())
        options = TargetOptions(precision=precision or target.ROW.default_precision)
        return cls(
            name=name, target=target, options=options, reference=reference, verifier=verifier, compact=compact,
            folder=folder,
        )  # fmt: skip

    def lowerings(self, compact: CompactModel | None = None) -> Iterator[Lowering]:
        """`step`, then `decode`."""
        yield make_step(compact or self.compact, self.target, self.options)
        decode = make_decode(compact or self.compact, self.target, self.options)
        assert decode is not None
        yield decode

    def file(self, lowering: Lowering, folder: Path) -> Path:
        return folder / f"{lowering.name}{self.target.ROW.suffix}"

    def verify(self, folder: Path | None = None) -> Parity:
        """The real gate on the programs in `folder`."""
        spec = self.specs()
        trial = Trial(folder=folder or self.folder, verifier=self.verifier, packs=(), on_stage=lambda stage: None)
        return trial.check(trial.open(spec), spec)

    def verify_eagerly(self, step: nn.Module, **fault: Any) -> Parity:
        """The real gate of the target on `step` as it is, in place of its program; `fault` as in `EagerProgram`."""
        spec = self.specs()
        _, decode = self.lowerings()
        pictures = {"after": _as_pictures} if self.target.ROW.gives_pictures else {}
        programs = (
            EagerProgram(step, spec.programs["step"], **fault),
            EagerProgram(decode.module, spec.programs["decode"], **pictures),
        )
        return self.verifier.check(self.loop(*programs), spec)

    def specs(self) -> TargetSpec:
        """The programs as a manifest describes them."""
        programs = {
            x.name: ProgramSpec(name=x.name, file=self.file(x, Path()).name, inputs=x.inputs, outputs=x.outputs)
            for x in self.lowerings()
        }
        return TargetSpec(target=self.name, precision=self.options.precision, programs=programs)

    def loop(self, step: Program, decode: Program) -> Loop:
        """What draws with programs that take what those of the artifact take."""
        spec = self.specs().programs["step"]
        shape = latents_shape(self.compact)
        return Loop(sampling=self.reference.sampling, latents_shape=shape, spec=spec, step=step, decode=decode)

    def seed_constants(self, wrong: CompactModel, folder: Path) -> None:
        """A copy of the programs that holds the numbers of `wrong`, put into the lowered step file in place.

        Where the file holds a changed tensor in another form than the module does, the wrong step is lowered anew.
        """
        shutil.copytree(self.folder, folder)
        right, altered = next(self.lowerings()), next(self.lowerings(wrong))
        if not overwrite_constants(self.file(right, folder), right.module, altered.module):
            self.seed_lowering(altered, folder)

    def seed_lowering(self, wrong: Lowering, folder: Path) -> None:
        """A copy of the programs in which `wrong` takes the place of the one of its name."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        file = self.file(wrong, folder)
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        self.target.lower(wrong, file, self.options)

    def seed_module(self, index: int, fault: object, folder: Path) -> None:
        """Lower program `index` with `fault` applied to its module."""
        lowering = list(self.lowerings())[index]
        self.seed_lowering(replace(lowering, module=fault(lowering.module).eval()), folder)  # type: ignore[operator]


def _as_pictures(outputs: Arrays, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """As an engine gives a picture type: bytes, (height, width, 3)."""
    return {name: image[0].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8) for name, image in outputs.items()}


def overwrite_constants(file: Path, right: nn.Module, wrong: nn.Module) -> bool:
    """Replace in `file` the bytes of every tensor of `right` that differs in `wrong`; False if one is not found."""
    files = [path for path in file.rglob("*") if path.is_file()] if file.is_dir() else [file]
    before = {path: path.read_bytes() for path in files}
    after = {path: bytearray(content) for path, content in before.items()}
    state, changed = wrong.state_dict(), 0
    for name, tensor in right.state_dict().items():
        if torch.equal(tensor, state[name]):
            continue
        changed += 1
        if not any(_overwrite(before[path], after[path], tensor, state[name]) for path in files):
            return False
    assert changed, "the fault changes no number"
    for path, content in after.items():
        path.write_bytes(content)
    return True


def _overwrite(before: bytes, after: bytearray, right: Tensor, wrong: Tensor) -> bool:
    for old, new in zip(_encodings(right), _encodings(wrong), strict=True):
        offset = before.find(old)
        if offset >= 0:
            after[offset : offset + len(new)] = new
            return True
    return False


def _encodings(tensor: Tensor) -> list[bytes]:
    """The forms in which a file may hold a tensor: as it is, transposed or channels last, in fp32 or fp16."""
    layouts = [tensor]
    layouts += [tensor.T] if tensor.dim() == 2 else [tensor.permute(0, 2, 3, 1)] if tensor.dim() == 4 else []
    return [t.to(dtype).contiguous().numpy().tobytes() for t in layouts for dtype in (torch.float32, torch.float16)]
