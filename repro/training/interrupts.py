"""How a signal ends training: recorded, then handled after the iteration; a second Ctrl-C interrupts at once."""

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
    """A list that collects the numbers of signals that end a run; a second SIGINT raises KeyboardInterrupt.

    They are SIGINT, SIGTERM, SIGUSR2 and, unless it is ignored (``nohup``), SIGHUP, which a closed terminal sends.
    On leaving, a received SIGUSR2 is raised again for its previous handler: submitit's requeues the job. Outside
    the main thread, where Python cannot set handlers, the list stays empty.
    """
    received: list[int] = []

    def record_signal(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous_handlers = {}
    if threading.current_thread() is threading.main_thread():
        watched = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            watched.remove(signal.SIGHUP)
        previous_handlers = {number: signal.signal(number, record_signal) for number in watched}
    try:
        yield received
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        if signal.SIGUSR2 in received and callable(previous_handlers[signal.SIGUSR2]):
            signal.raise_signal(signal.SIGUSR2)
