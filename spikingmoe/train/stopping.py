"""SIGINT and SIGTERM while training: finish the step, keep it, then stop as the signal asks."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

GRACE_S = 5.0  # for the step to end, out of the 10 s in which training must be gone
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """From `open` to `close` the first signal only leaves its number in `signal`, 0 until then.

    `obey` then does what the signal did when this was made. A second signal, or a step that takes
    longer than `GRACE_S`, does that at once. Signals that were ignored stay ignored.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._meaning = {number: signal.getsignal(number) for number in SIGNALS}
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def open(self) -> None:
        """Take the signals; in the main thread only, elsewhere Python cannot."""
        if threading.current_thread() is threading.main_thread():
            for number, meaning in self._meaning.items():
                if meaning is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)

    def close(self) -> None:
        """Give the signals back to whom they belonged."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def obey(self, number: int) -> None:
        """Do what signal `number` did before; never returns."""
        handler = self._meaning[signal.Signals(number)]
        self.close()
        self.signal = 0
        if callable(handler):
            handler(number, None)
        raise SystemExit(128 + number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            self.obey(number)
        self.signal = number
        self._timer = threading.Timer(GRACE_S, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()
