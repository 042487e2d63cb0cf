"""Being asked to stop: Ctrl-C, and the signals by which systems end a process, all as one KeyboardInterrupt.

Only the main thread gets signals; in another one everything here leaves them as they are. What is ignored stays so.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (signal.SIGINT, *_ENDING)
_NOTED = b"\nstopping after this step, with a save; once more stops at once\n"
_Handler = Callable[[int, FrameType | None], object]


class StoppedError(KeyboardInterrupt):
    """A signal other than that of Ctrl-C, which ends a process all the same."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass(slots=True)
class StopRequest:
    """The number of the signal that asked to stop; 0 before."""

    number: int = 0


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that was ended so: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (error.number if isinstance(error, StoppedError) else signal.SIGINT)


def describe_ignored() -> str | None:
    """One line where Ctrl-C is ignored, as a shell hands it down to what a script starts in the background."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return None
    return f"Ctrl-C is ignored, as it was when this was started: kill {os.getpid()} stops it, with a save"


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise StoppedError in the body, so that it is left as tidily as by Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    with _handled([one for one in _ENDING if signal.getsignal(one) is signal.SIG_DFL], stop):
        yield


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Deliver a signal to stop that comes during the body after it."""
    received: list[int] = []
    try:
        with _handled(_SIGNALS, lambda number, frame: received.append(number)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def noted_stops() -> Iterator[StopRequest]:
    """Note the first signal to stop, for a body that ends itself where it is right, and obey it afterwards.

    A second one is obeyed at once. A body that was done all the same sets the number back to 0.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.number:
            raise KeyboardInterrupt if number == signal.SIGINT else StoppedError(number)
        request.number = number
        with suppress(OSError):
            os.write(2, _NOTED)

    listened = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    with _handled(listened, note):
        yield request
    if request.number:
        signal.raise_signal(request.number)


@contextmanager
def _handled(numbers: list[signal.Signals] | tuple[signal.Signals, ...], handler: _Handler) -> Iterator[None]:
    """Have the main thread give these signals to `handler` during the body."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
