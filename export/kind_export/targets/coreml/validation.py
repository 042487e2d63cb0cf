"""Fewer looks of coremltools at its own program: after each of a hundred passes is a fifth of a conversion's time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kind_export.targets.replacing import replaced
from kind_runtimes.quiet import import_coremltools


@contextmanager
def validated_at_the_end() -> Iterator[None]:
    """A program converted within this is validated where dead code has gone, and before it is written."""
    owner = import_coremltools().converters.mil.mil.Program
    validate = owner.validate

    def validate_essential(program: object, check_essential_scope: bool = False) -> None:
        if check_essential_scope:
            validate(program, check_essential_scope=True)

    with replaced(owner, "validate", validate_essential):
        yield
