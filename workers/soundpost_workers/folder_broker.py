"""A broker in a folder: Celery's own file transport, made safe for several processes.

The library writes a message under its final name, so that a reader may take it while it is empty
and end of it; and it keeps what is bound to an exchange in a file written in place, which a writer
that is killed leaves unreadable. Here a message appears whole, and since every message names its
queue, nothing else is shared.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from time import monotonic_ns
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps

SCHEME = "folder"
"""What a broker's address begins with: `folder://`."""


class Channel(filesystem.Channel):
    """Messages as files that are seen whole or not at all; bindings are each process's own."""

    # Sending one message to many queues would need shared bindings; nothing here does that.
    supports_fanout = False
    get_table = virtual.Channel.get_table
    _delete = virtual.Channel._delete

    def _put(  # type: ignore[override]  # its two parents name the message differently
        self, queue: str, payload: Any, **_: Any
    ) -> None:
        folder = Path(self.data_folder_out)
        name = f"{monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        part = folder / f".{name}.part"
        try:
            part.write_text(dumps(payload), encoding="utf-8")
            part.rename(folder / name)
        finally:
            part.unlink(missing_ok=True)


class Transport(filesystem.Transport):
    """Celery's file transport over these channels."""

    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:{Transport.__name__}"
