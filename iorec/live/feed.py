# SPDX-License-Identifier: GPL-2.0-only
"""Sends what is recorded to a viewer, and leaves out what that is too slow for."""

import select
import socket
import threading
from queue import SimpleQueue

from analyze.metadata import Metadata
from iorec.store.named import Named
from iorec.store.origin import Origin
from iorec.store.spool import Encoder

# Of 10 bytes for each I/O: two seconds of a fast machine.
_MOST_BYTES = 4 << 20
_PATIENCE_S = 1.0


class Feed:
    """A sink at the other end of which a viewer reads frames; no method waits for the viewer.

    A batch for which there is no room is left out whole, of which the metadata of later ones tell:
    they count it as recorded.
    """

    size_bytes = 0  # nothing is kept

    def __init__(self, channel: socket.socket, origin: Origin, period_s: float) -> None:
        self.period_s = period_s
        self._channel = channel
        self._hang_up = select.poll()
        self._hang_up.register(channel, 0)
        self._encoder = Encoder(origin)
        self._queue = SimpleQueue[bytes | None]()
        self._queued_bytes = 0  # ever
        self._sent_bytes = 0
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    @property
    def is_over(self) -> bool:
        """Whether the viewer has ended, also when nothing was sent to it meanwhile."""
        return bool(self._hang_up.poll(0))

    def write(self, batch: Named, metadata: Metadata) -> None:
        """Sends a batch if there is room; the last one in any case."""
        if self._queued_bytes - self._sent_bytes > _MOST_BYTES and not metadata.complete:
            return
        frames = self._encoder.encode(batch, metadata)
        self._queued_bytes += len(frames)
        self._queue.put(frames)

    def sync(self) -> None:
        """Nothing of this has to outlive a power cut."""

    def close(self) -> None:
        """Waits a moment for the viewer to take what is on its way."""
        self._queue.put(None)
        self._sender.join(_PATIENCE_S)

    def _send(self) -> None:
        while (frames := self._queue.get()) is not None:
            try:
                self._channel.sendall(frames)
            except OSError:  # the viewer has ended
                return
            self._sent_bytes += len(frames)
