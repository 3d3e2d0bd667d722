"""The web side in processes of its own, beside the one that delivers.

Two pipes hold them together: the web processes ring when they have stored something, so that a lone webhook is sent
within milliseconds; and when the one that delivers is gone, however it died, the web side notices and ends as well.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping as Members
from contextlib import suppress

from relay.mapping.compiled import Mapping
from relay.settings import Settings
from relay.web.server import serve, share_memory

QUIET = 0.01
"""Seconds after a ring in which others are not answered by themselves."""


class WebSide:
    """gunicorn as a child of this process. Make it before any thread is started."""

    def __init__(self, settings: Settings, mappings: Members[str, Mapping]) -> None:
        rung, self._ring = os.pipe()
        self._lifeline, held = os.pipe()
        self._rung, self._held = rung, held
        # A pipe that is full has been rung enough.
        os.set_blocking(self._ring, False)
        # Whoever started us may not care for its children; we do.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        share_memory()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(rung)
            os.close(held)
            serve(settings, mappings, stored=self._tell, lifeline=self._lifeline)
        os.close(self._ring)
        os.close(self._lifeline)

    def listen(self, heard: Callable[[], None], ended: Callable[[], None]) -> None:
        """From now on call `heard` when something was stored, and `ended` once, when the web side is gone."""

        def work() -> None:
            while os.read(self._rung, 4096):
                heard()
                time.sleep(QUIET)
            ended()

        threading.Thread(target=work, name="rung", daemon=True).start()

    def terminate(self) -> None:
        """Ask it to finish what is on its way and end."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _tell(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._ring, b".")
