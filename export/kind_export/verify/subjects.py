"""What is verified: opened programs in each way that they are run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kind_core.precisions import PRECISIONS
from kind_export.target_rows import TARGET_ROWS
from kind_export.verify.parity import ROUNDINGS
from kind_export.verify.probes import Probe, step_indices
from kind_runtimes.engines.runtime import can_unround, runs_node_by_node
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import TargetSpec
from kind_runtimes.packs import Pack


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Opened programs, and the packs of the classes where the programs hold none.

    `is_exact`: the sampler, guidance included, is computed in fp32; `stores_half`: with numbers of fp16. `is_rounded`:
    each result is rounded, as a second way to run programs that are `is_wider` the first time.
    """

    loop: Loop
    packs: tuple[Pack, ...]
    is_exact: bool
    is_rounded: bool = False
    is_wider: bool = False
    stores_half: bool = False

    @property
    def half_roundings(self) -> int:
        """How often a step rounds the latents to fp16: in everything that it does, or in its coefficient alone."""
        return ROUNDINGS if not self.is_exact else int(self.stores_half)

    def choose(self, class_index: int) -> tuple[Loop, int]:
        """What draws a class, and the index that it has there."""
        if not self.packs:
            return self.loop, class_index
        return self.loop.with_pack(self.packs[class_index]), 0

    def describe(self, target: TargetSpec) -> str:
        """The target, for an error."""
        return f"{target.target} with each result rounded to {target.precision}" if self.is_rounded else target.target

    @property
    def can_unround(self) -> bool:
        return can_unround(self.loop.step)

    def without_rounding(self) -> Subject:
        """A Core ML package with activations kept in fp32."""
        step, unguided = self.loop.step, self.loop.step_unguided
        assert can_unround(step)
        exact = unguided.without_rounding() if can_unround(unguided) else None
        loop = replace(self.loop, decode=None, step=step.without_rounding(), step_unguided=exact)
        return replace(self, loop=loop, is_exact=True, stores_half=not self.is_exact)

    def tries(self, probe: Probe, steps: int) -> bool:
        """Whether a probe is run: where all are run without rounding or wider, some are enough with it."""
        has_finer = self.is_rounded or (self.can_unround and not self.is_exact)
        return not has_finer or probe.index in step_indices(steps)


def ways_to_run(subject: Subject, target: TargetSpec) -> list[Subject]:
    """As the runtime runs it here; and where its kernels are wider than the precision says, in that precision too."""
    loop, step = subject.loop, subject.loop.step
    if not PRECISIONS[target.precision].is_half or not runs_node_by_node(step):
        return [subject]
    unguided, decode = (
        one.node_by_node() if runs_node_by_node(one) else None for one in (loop.step_unguided, loop.decode)
    )
    rounded = replace(loop, step=step.node_by_node(), step_unguided=unguided, decode=decode)
    is_exact = subject.is_exact and not TARGET_ROWS[target.target].rounds_all
    second = replace(subject, loop=rounded, is_rounded=True, is_exact=is_exact)
    return [replace(subject, is_wider=True), second]
