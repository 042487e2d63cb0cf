"""The one exception tree of the project.

    KindError                        anything a user can cause and mend; `hint` says the next step
    ├── ConfigError                  a config value, preset or config file that does not fit
    ├── CheckpointError              a checkpoint folder that is missing, broken, newer or inconsistent
    ├── ClassNameError               a class that is unknown or ambiguous
    ├── DataError                    images that cannot be read, found or used
    ├── BundleError                  a bundle that is missing, tampered with or newer
    ├── ResultsError                 measured results that are missing, broken, newer or of another model
    ├── OutputError                  an output that exists, cannot be written, or does not fit on the disk
    ├── DeviceError                  a device that is unknown, or a device file that does not fit
    ├── TargetError                  an unknown target or runtime, or one whose tools are not installed
    ├── BudgetError                  a limit of size or time that no choice, or not the exported one, meets
    ├── ExportError                  a program that could not be lowered
    └── VerificationError            an artifact that differs from the eager model; nothing was published

The command lines print `message` in one line and `hint` in a second, and exit with 1.
"""

from __future__ import annotations

_MAX_MESSAGE = 1000


class KindError(Exception):
    """An error that a user can mend. `message` names the offending and the expected value, `hint` the next step.

    What quotes more than anybody reads is shortened in its middle: a value of a damaged file may be megabytes.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        message = " ".join(message.splitlines())  # one line, whatever names and values it quotes
        message = message if len(message) <= _MAX_MESSAGE else f"{message[:600]} ... {message[-300:]}"
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(KindError):
    """A config value, preset or config file that does not fit."""


class CheckpointError(KindError):
    """A checkpoint folder that is missing, broken, newer or inconsistent."""


class ClassNameError(KindError):
    """A class that is unknown or ambiguous."""


class DataError(KindError):
    """Images that cannot be read, found or used."""


class BundleError(KindError):
    """A bundle that is missing, tampered with or newer."""


class ResultsError(KindError):
    """Measured results that are missing, broken, newer or of another model."""


class OutputError(KindError):
    """An output that exists, cannot be written, or does not fit on the disk."""


class DeviceError(KindError):
    """A device that is unknown, a device table that does not fit, or too few measurements to calibrate with."""


class TargetError(KindError):
    """An unknown target or runtime, or one whose tools are not installed."""


class BudgetError(KindError):
    """A limit of size or time that no choice, or not the exported one, meets."""


class ExportError(KindError):
    """A program that could not be lowered."""


class VerificationError(KindError):
    """An artifact that differs from the eager model; nothing was published."""
