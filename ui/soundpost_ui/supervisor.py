"""Runs programs side by side: their lines prefixed, what dies started again, all ended together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# prctl(2): the signal that a child gets when its parent dies, however that comes.
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# Who lived so long has recovered; its next failure is a new one.
_STEADY_S = 60.0
_LOOK_S = 0.1

Print = Callable[[str, str], None]


@dataclass(frozen=True)
class Program:
    """A command to keep running, under a name that fits before its lines."""

    name: str
    command: Sequence[str]


class Supervisor:
    """Keeps programs running until told to stop.

    `line` is called with a program's name and each line that it prints. On the way out every
    program is asked to end, and ended after grace_s. Run it in the main thread: the children end
    with the thread that started them.
    """

    def __init__(self, programs: Sequence[Program], line: Print, grace_s: float = 20.0) -> None:
        self._kept = [_Kept(program, line) for program in programs]
        self._line = line
        self._grace_s = grace_s

    def run(self, stop: threading.Event) -> None:
        """Start everything, and start again what dies, until `stop` is set."""
        try:
            while not stop.is_set():
                for kept in self._kept:
                    kept.look_after()
                stop.wait(_LOOK_S)
        finally:
            self._end()

    def processes(self) -> dict[str, int]:
        """Return the process id of each program that runs."""
        return {kept.program.name: kept.process.pid for kept in self._kept if kept.process}

    def _end(self) -> None:
        for kept in self._kept:
            kept.ask_to_end()
        last = time.monotonic() + self._grace_s
        for kept in self._kept:
            if not kept.ended(max(0.0, last - time.monotonic())):
                self._line(kept.program.name, f"did not end in {self._grace_s:.0f} s: killed")


class _Kept:
    """One program: its process, and when it may be started again."""

    def __init__(self, program: Program, line: Print) -> None:
        self.program = program
        self.process: subprocess.Popen[str] | None = None
        self._line = line
        self._started_s = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._not_before_s = 0.0
        self._reader: threading.Thread | None = None

    def look_after(self) -> None:
        """Start the program if it does not run and has waited long enough."""
        now_s = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            self._note_death(code, now_s)
        if self.process is None and now_s >= self._not_before_s:
            self._start(now_s)

    def ask_to_end(self) -> None:
        """Send the polite signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def ended(self, within_s: float) -> bool:
        """Wait for the end; kill what is left of it, with its children. Return whether it ended."""
        if self.process is None:
            return True
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            self._kill_group()
            self.process.wait()
            if self._reader is not None:
                self._reader.join(timeout=5.0)
        return True

    def _start(self, now_s: float) -> None:
        self.process = subprocess.Popen(
            self.program.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own, so that Ctrl-C reaches it through us and once.
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # one system call, no lock is taken
        )
        self._started_s = now_s
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        with process.stdout:
            for line in process.stdout:
                self._line(self.program.name, line.rstrip("\n"))

    def _note_death(self, code: int, now_s: float) -> None:
        self._kill_group()
        if now_s - self._started_s > _STEADY_S:
            self._pause_s = _FIRST_PAUSE_S
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._line(self.program.name, f"ended ({how}); again in {self._pause_s:.1f} s")
        self._not_before_s = now_s + self._pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)
        self.process = None

    def _kill_group(self) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
