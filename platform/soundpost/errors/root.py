"""The root of all errors, and what is done with any of them."""

from __future__ import annotations

from typing import ClassVar, TypeVar

AnyError = TypeVar("AnyError", bound="SoundpostError")


class SoundpostError(Exception):
    """Something in Soundpost went wrong."""

    code: ClassVar[str] = "soundpost"
    # An error that comes back from the service carries the remedy that it was given there.
    remedy: str = "See the detail, and report it if it makes no sense."

    def __init__(self, value: object = None, detail: str = "") -> None:
        self.value = value
        self.detail = detail
        super().__init__(self._text())

    def __reduce__(self) -> tuple[type[SoundpostError], tuple[object, str]]:
        """Travel between processes as what it was made of."""
        return type(self), (self.value, self.detail)

    def _text(self) -> str:
        summary = (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")
        offender = "" if self.value is None else f": {self.value}"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{summary}{offender}{detail}"


def error_class(code: str) -> type[SoundpostError] | None:
    """Return the class of errors with this code, or None if there is none."""
    kinds = [SoundpostError]
    while kinds:
        kind = kinds.pop()
        if kind.code == code:
            return kind
        kinds.extend(kind.__subclasses__())
    return None


def about(error: AnyError, value: object) -> AnyError:
    """Return the same error about another name of the thing that it is about."""
    other = type(error)(value, error.detail)
    other.__cause__ = error
    return other


def describe(error: SoundpostError) -> str:
    """Return code, message and remedy in one line, for logs and rows."""
    return f"[{error.code}] {error}. {error.remedy}"
