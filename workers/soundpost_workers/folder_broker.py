"""A broker in a folder: Celery's own file transport, made safe for several processes.

The library writes a message under its final name, so that a reader may take it while it is empty
and end of it; it moves a message away to read it, where a reader that is killed leaves it; and it
keeps what is bound to an exchange in a file written in place, which a writer that is killed leaves
unreadable. Here a message appears whole, belongs to whoever removes it, and since every message
names its queue, nothing else is shared. What a killed writer left is removed by the next program.
"""

from __future__ import annotations

import fcntl
import uuid
from contextlib import suppress
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps, loads

SCHEME = "folder"
"""What a broker's address begins with: `folder://`."""


class Channel(filesystem.Channel):
    """Messages as files that are seen whole or not at all; bindings are each process's own."""

    # Sending one message to many queues would need shared bindings; nothing here does that.
    supports_fanout = False
    get_table = virtual.Channel.get_table
    _delete = virtual.Channel._delete

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]  # kombu has no types
        remove_abandoned(Path(self.data_folder_out))

    def _put(  # type: ignore[override]  # its two parents name the message differently
        self, queue: str, payload: Any, **_: Any
    ) -> None:
        name = f"{time_ns()}_{uuid.uuid4()}.{queue}.msg"
        while not _write_whole(Path(self.data_folder_out) / name, dumps(payload)):
            pass

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            # Several may read it; the one that removes it has it.
            with suppress(FileNotFoundError):
                text = path.read_text(encoding="utf-8")
                path.unlink()
                return loads(text)
        raise Empty


def remove_abandoned(folder: Path) -> None:
    """Remove the parts of messages whose writer is gone: a writer holds its part locked."""
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError, BlockingIOError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _write_whole(path: Path, text: str) -> bool:
    """Whether the message is there: a part not yet locked may be taken for an abandoned one."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text)
            file.flush()
            part.rename(path)
    except FileNotFoundError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


class Transport(filesystem.Transport):
    """Celery's file transport over these channels."""

    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:{Transport.__name__}"
