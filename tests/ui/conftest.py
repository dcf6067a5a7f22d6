"""The command line in this process, with a home of its own.

soundpost: runs it and returns what it printed and its exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from soundpost.config import load_settings
from soundpost_ui.cli import main


@dataclass(frozen=True)
class Told:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def soundpost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Told]:
    """Return a function that runs the command line, with the stand-in encoder."""
    monkeypatch.setenv("SOUNDPOST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SOUNDPOST_ENCODER", "placeholder:tone")
    monkeypatch.setenv("SOUNDPOST_INDEX", "exact")
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.delenv("SOUNDPOST_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*args: str | Path) -> Told:
        load_settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["soundpost", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        return Told(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run
