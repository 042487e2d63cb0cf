"""Where the programs of one export are tried, one target after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kind_export.verify.gates import Verifier
from kind_export.verify.parity import Parity
from kind_export.verify.saved_step import SavedStep
from kind_runtimes.about import About
from kind_runtimes.loop import Loop, open_loop
from kind_runtimes.manifest import TargetSpec
from kind_runtimes.packs import Pack


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """The folder that programs are written into, what they are held against, and the classes of a base, in order."""

    folder: Path
    verifier: Verifier
    packs: tuple[Pack, ...]
    on_stage: Callable[[str], None]

    def open(self, target: TargetSpec) -> Loop:
        """Its programs; raises BundleError where one says of itself what it should not."""
        reference = self.verifier.reference
        about = About(classes=() if self.packs else reference.classes, sampling=reference.sampling)
        return open_loop(self.folder, target, about, self.verifier.trajectories[0].noise.shape)

    def check(self, loop: Loop, target: TargetSpec, saved: SavedStep | None = None) -> Parity:
        """How well opened programs do; raises VerificationError at the first gate that they fail."""
        self.on_stage(f"verifying {target.target}")
        return self.verifier.check(loop, target, self.packs, saved)
