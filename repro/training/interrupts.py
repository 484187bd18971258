"""How a signal ends a training: noted, acted on at the next iteration, and the second Ctrl-C at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """A signal ended the run after a checkpoint; ``signal`` is its number."""

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that SIGINT, SIGTERM or SIGUSR2 put their number into; a second SIGINT interrupts at once.

    Who waited for SIGUSR2 before hears of it in the end: submitit's handler queues the job again.
    """
    stop: list[int] = []

    def note(number: int, frame: object) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if signal.SIGUSR2 in stop and callable(before[signal.SIGUSR2]):
            signal.raise_signal(signal.SIGUSR2)
