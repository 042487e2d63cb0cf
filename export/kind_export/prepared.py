"""What every choice of an export shares: the checkpoint, read once, and the eager model's pictures, drawn once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from kind_core.checkpoint import Checkpoint
from kind_core.files.staging import check_output
from kind_core.samplers import Sampling
from kind_export.blending import open_together
from kind_export.job import ExportJob, read_job
from kind_export.request import ExportRequest
from kind_export.rewrites.truncate_ranks import may_cut
from kind_export.verify.gates import Verifier
from kind_export.verify.reference import Reference
from kind_runtimes.bundle import BUNDLE


class Prepared:
    """A request whose classes were found and whose output may be written; weights are read when first needed."""

    def __init__(self, request: ExportRequest, on_stage: Callable[[str], None]) -> None:
        self.job = read_job(request)
        check_output(self.job.output, BUNDLE, force=request.force)
        self._on_stage = on_stage
        self._verifiers: dict[Sampling, Verifier] = {}

    @cached_property
    def source(self) -> Checkpoint:
        """The classes that the request names, as they were trained."""
        self._on_stage("reading the checkpoint")
        return self.job.source.load([c.index for c in self.job.classes])

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The classes of the bundle: `source`, with blends opened together."""
        return open_together(self.source, self.job.openings)

    def make_verifier(self, job: ExportJob) -> Verifier:
        """What holds the programs of `job`; raises VerificationError where no check could tell its model from nothing.

        The pictures of a sampling are drawn once, whatever else the jobs that ask for it differ in.
        """
        if job.sampling not in self._verifiers:
            source = self.source
            self._on_stage("running the eager model")
            reference = Reference(checkpoint=source, sampling=job.sampling, openings=job.openings)
            self._verifiers[job.sampling] = Verifier(reference)
        is_approximate = may_cut(job.source.config.dit, job.request.max_rank, job.request.energy)
        return self._verifiers[job.sampling].with_gates(is_approximate=is_approximate)
