"""The broker without a server: several processes at one folder, killed at any moment."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from pathlib import Path

from kombu import Connection

from soundpost_workers import folder_broker

PATIENCE_S = 60.0


def connect(folder: Path) -> Connection:
    options = {"data_folder_in": str(folder), "data_folder_out": str(folder)}
    return Connection(f"{folder_broker.SCHEME}://", transport_options=options)


def take(folder: Path) -> None:
    """Print the numbers that arrive until -1 does."""
    with connect(folder) as connection:
        simple = connection.SimpleQueue("watch", no_ack=True)
        while (number := simple.get(timeout=PATIENCE_S).payload["number"]) >= 0:
            sys.stdout.write(f"{number}\n")


def send_for_ever(folder: Path) -> None:
    """Send what takes a while to write."""
    with connect(folder) as connection:
        while True:
            connection.SimpleQueue("watch").put({"filling": "x" * 1_000_000})


def start(what: str, folder: Path) -> subprocess.Popen[str]:
    """Run one of the two above in a process of its own."""
    command = [sys.executable, __file__, what, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_message_is_taken_before_it_is_whole(tmp_path: Path) -> None:
    takers = [start("take", tmp_path) for _ in range(2)]
    with connect(tmp_path) as connection:
        simple = connection.SimpleQueue("watch")
        for number in range(1500):
            simple.put({"number": number})
        for _ in takers:
            simple.put({"number": -1})
    printed = [taker.communicate(timeout=PATIENCE_S)[0] for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0]
    numbers = [int(number) for text in printed for number in text.split()]
    assert sorted(numbers) == list(range(1500))


def test_a_sender_may_be_killed(tmp_path: Path) -> None:
    for pause_s in (0.01, 0.03, 0.06, 0.1):
        with start("send", tmp_path) as sender:
            last = time.monotonic() + PATIENCE_S
            while not any(tmp_path.glob("*.msg")):
                assert time.monotonic() < last
                time.sleep(0.001)
            time.sleep(pause_s)
            sender.kill()
        with connect(tmp_path) as connection:
            simple = connection.SimpleQueue("watch", no_ack=True)
            while simple.qsize():
                assert json.dumps(simple.get(timeout=PATIENCE_S).payload["filling"])
            simple.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_sender_began_is_removed_and_what_another_writes_is_kept(
    tmp_path: Path,
) -> None:
    abandoned, begun = tmp_path / ".1_a.watch.msg.part", tmp_path / ".2_b.watch.msg.part"
    abandoned.write_text('{"numb')
    with begun.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder_broker.remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [begun]


if __name__ == "__main__":
    {"take": take, "send": send_for_ever}[sys.argv[1]](Path(sys.argv[2]))
