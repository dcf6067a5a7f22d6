"""METEOR by its authors' own program, where Java and that program are at hand.

`make eval-explain` fetches it (the jar is part of the package pycocoevalcap) into runs/explain/meteor
where Java is installed. SPICE is left out: it needs a parser of several hundred megabytes besides.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from soundpost.evaluation.metrics import Estimate, bootstrap
from soundpost.evaluation.text_scores import IntArray, words_of

JAR = Path("runs/explain/meteor/pycocoevalcap/meteor/meteor-1.5.jar")
_SEPARATOR = " ||| "


def missing(jar: Path = JAR) -> str | None:
    """Say what METEOR lacks on this machine, or None."""
    if shutil.which("java") is None:
        return "Java is not installed"
    return None if jar.is_file() else f"{jar} is not there"


class Meteor:
    """METEOR 1.5 (English, its usual weights), in a process of its own that is started once.

    Denkowski and Lavie, Meteor Universal, 2014. Raises OSError where `missing()` is not None.
    """

    def __init__(self, jar: Path = JAR) -> None:
        command = ["java", "-Xmx1G", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
        self._process = subprocess.Popen(
            command,
            cwd=jar.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                end.close()
        self._process.kill()
        self._process.wait()

    def score(
        self,
        candidates: Sequence[str],
        references: Sequence[Sequence[str]],
        groups: IntArray | None = None,
    ) -> Estimate:
        """Return the mean over candidates [N]; both sides are cut into words as elsewhere."""
        counted = []
        for ours, texts in zip(candidates, references, strict=True):
            written = [" ".join(words_of(text)) for text in (*texts, ours)]
            counted.append(self._ask(["SCORE", *written], 1)[0])
        # One line a text, and that of all together.
        scores = self._ask(["EVAL", *counted], len(counted) + 1)[:-1]
        return bootstrap(np.array(scores, np.float64), groups)

    def _ask(self, parts: Sequence[str], lines: int) -> list[str]:
        asking, answering = _ends(self._process)
        asking.write(_SEPARATOR.join(parts) + "\n")
        asking.flush()
        return [answering.readline().strip() for _ in range(lines)]


def _ends(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise OSError("METEOR was started without pipes")
    return process.stdin, process.stdout
