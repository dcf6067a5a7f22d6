"""The supervisor starts again what dies, prefixes lines, and leaves nothing running behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from soundpost_ui.supervisor import Program, Supervisor


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


@contextmanager
def running(supervisor: Supervisor) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60.0)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < last, "it did not come about"
        time.sleep(0.02)


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


SLEEPER = "import time; print('up'); time.sleep(600)"


def test_lines_come_with_the_name_of_their_program() -> None:
    lines: list[tuple[str, str]] = []
    programs = [Program(name, python(f"print('{name} says'); {SLEEPER}")) for name in ("a", "b")]
    with running(Supervisor(programs, lambda *line: lines.append(line))):
        wait_for(lambda: {("a", "a says"), ("b", "b says")} <= set(lines))


def test_what_is_killed_runs_again_and_the_others_go_on() -> None:
    lines: list[tuple[str, str]] = []
    supervisor = Supervisor(
        [Program("dies", python(SLEEPER)), Program("stays", python(SLEEPER))],
        lambda *line: lines.append(line),
    )
    with running(supervisor):
        wait_for(lambda: lines.count(("dies", "up")) == 1 and ("stays", "up") in lines)
        before = supervisor.processes()
        os.kill(before["dies"], signal.SIGKILL)
        wait_for(lambda: lines.count(("dies", "up")) == 2)
        after = supervisor.processes()
        assert after["stays"] == before["stays"]
        assert after["dies"] != before["dies"]
        assert any("signal 9" in text for name, text in lines if name == "dies")
    assert not any(map(is_alive, after.values()))


def test_what_does_not_listen_is_killed_with_its_children(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    pids = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('up')\n"
        "time.sleep(600)\n"
    )
    supervisor = Supervisor(
        [Program("deaf", python(code))], lambda *line: lines.append(line), grace_s=0.3
    )
    with running(supervisor):
        wait_for(lambda: ("deaf", "up") in lines)
    wait_for(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))
    assert any("killed" in text for _, text in lines)


def test_the_programs_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import threading, sys\n"
        "from soundpost_ui.supervisor import Program, Supervisor\n"
        f"child = \"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()))\\n"
        'time.sleep(600)"\n'
        "program = Program('child', [sys.executable, '-c', child])\n"
        "Supervisor([program], print).run(threading.Event())\n"
    )
    supervisor = subprocess.Popen(python(code))
    wait_for(lambda: pid.is_file() and pid.read_text() != "")
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not is_alive(int(pid.read_text())))
