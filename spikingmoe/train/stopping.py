"""SIGINT and SIGTERM while training: finish the step, keep it, then stop as the signal asks."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

GRACE_S = 5.0  # for the step to end, out of the 10 s in which training must be gone
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within the block the first signal only leaves its number in `signal`, 0 until then.

    `obey` then does what the signal would have done before. A second signal, or a step that takes
    longer than `GRACE_S`, does that at once.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the signals back to whom they belonged."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def obey(self, number: int) -> None:
        """Do what signal `number` did before the block; never returns."""
        handler = self._before.get(number, signal.getsignal(number))
        self.close()
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
