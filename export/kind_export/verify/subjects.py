"""What is verified: opened programs in each way that they are run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kind_core.precisions import PRECISIONS
from kind_export.target_rows import TARGET_ROWS
from kind_export.verify.probes import Probe, step_indices
from kind_runtimes.generator import Generator
from kind_runtimes.manifest import TargetSpec
from kind_runtimes.packs import Pack


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Opened programs, and the packs of the classes where the programs hold none.

    `is_exact`: the sampler, guidance included, is computed in fp32. `is_rounded`: each result is rounded, as a second
    way to run programs that are `is_wider` the first time.
    """

    generator: Generator
    packs: tuple[Pack, ...]
    is_exact: bool
    is_rounded: bool = False
    is_wider: bool = False

    def choose(self, class_index: int) -> tuple[Generator, int]:
        """What draws a class, and the index that it has there."""
        if not self.packs:
            return self.generator, class_index
        return self.generator.with_pack(self.packs[class_index]), 0

    def describe(self, target: TargetSpec) -> str:
        """The target, for an error."""
        return f"{target.target} with each result rounded to {target.precision}" if self.is_rounded else target.target

    @property
    def can_unround(self) -> bool:
        return hasattr(self.generator.step, "without_rounding")

    def without_rounding(self) -> Subject:
        """A Core ML package with activations kept in fp32."""
        programs = {"step": self.generator.step, "step_unguided": self.generator.step_unguided}
        exact = {name: p.without_rounding() for name, p in programs.items() if p is not None}  # type: ignore[attr-defined]
        return replace(self, generator=replace(self.generator, decode=None, **exact), is_exact=True)

    def tries(self, probe: Probe, steps: int) -> bool:
        """Whether a probe is run: where all are run without rounding or wider, some are enough with it."""
        has_finer = self.is_rounded or (self.can_unround and not self.is_exact)
        return not has_finer or probe.index in step_indices(steps)


def ways_to_run(subject: Subject, target: TargetSpec) -> list[Subject]:
    """As the runtime runs it here; and where its kernels are wider than the precision says, in that precision too."""
    generator = subject.generator
    if not PRECISIONS[target.precision].is_half or not hasattr(generator.step, "node_by_node"):
        return [subject]
    programs = {"step": generator.step, "step_unguided": generator.step_unguided, "decode": generator.decode}
    rounded = {name: one.node_by_node() for name, one in programs.items() if one is not None}  # type: ignore[attr-defined]
    is_exact = subject.is_exact and not TARGET_ROWS[target.target].rounds_all
    second = replace(subject, generator=replace(generator, **rounded), is_rounded=True, is_exact=is_exact)
    return [replace(subject, is_wider=True), second]
