"""A section of a document that a command writes: everything between its two markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A section by its heading, and the name in its markers."""

    title: str
    name: str

    def write(self, path: Path, lines: Sequence[str]) -> None:
        """Put lines between the markers; the section is added where there is none."""
        begin, end = f"<!-- {self.name}: begin -->", f"<!-- {self.name}: end -->"
        text = path.read_text(encoding="utf-8") if path.is_file() else "# Benchmarks\n"
        if begin not in text or end not in text:
            text = f"{text.rstrip()}\n\n{self.title}\n\n{begin}\n{end}\n"
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1]
        body = "\n".join(lines).strip()
        path.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")
