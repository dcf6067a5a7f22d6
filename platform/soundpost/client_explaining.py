"""What the client says of words: explanations of differences, findings, captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypedDict, Unpack

from soundpost.client_transport import Transport, given, opened_part
from soundpost.service.explain_schemas import Caption, Explanation
from soundpost.service.schemas import Job
from soundpost.service.watch_schemas import Finding

Tier = Literal[1, 2, 3]


class StretchFields(TypedDict, total=False):
    """A part of a recording, in seconds from its start; no end: to its end."""

    start_s: float
    end_s: float | None


class UploadStretch(StretchFields, total=False):
    """A part of an upload, and one of the recording that it is compared with."""

    reference_start_s: float
    reference_end_s: float | None


class ExplainingCalls(Transport):
    """The calls about words."""

    def explain(
        self,
        first: int,
        second: int,
        *,
        tiers: Sequence[Tier] = (1, 2, 3),
        of_first: StretchFields | None = None,
        of_second: StretchFields | None = None,
    ) -> Explanation:
        """Say how a recording differs from another, the first, with every claim checked.

        Raises UnknownRecordingError, FileMissingError, TooLongError, ExplainTimeoutError, BusyError
        and InvalidValueError.
        """
        body = {
            "first": {"recording_id": first, **(of_first or {})},
            "second": {"recording_id": second, **(of_second or {})},
            "tiers": list(tiers),
        }
        return self._ask(Explanation, "POST", "/v1/explain", json=body)

    def explain_audio(
        self,
        file: str | Path | BinaryIO,
        reference: int,
        *,
        tier: Tier | None = None,
        name: str | None = None,
        **stretch: Unpack[UploadStretch],
    ) -> Explanation:
        """Say how a file, which is sent and not kept, differs from a recording that is there.

        Every tier, unless one is named. Raises like explain and upload.
        """
        data = given({"recording_id": reference, "tier": tier, **stretch})
        with opened_part(file, name) as part:
            return self._ask(Explanation, "POST", "/v1/explain/audio", files=part, data=data)

    def finding(self, finding_id: int) -> Finding:
        """Look at a finding with its explanation and its claims. Raises UnknownFindingError."""
        return self._ask(Finding, "GET", f"/v1/findings/{finding_id}")

    def captions(self, recording_id: int, *, page_size: int = 100) -> Iterator[Caption]:
        """Go through what the windows of a recording sound like, those of page_size at a time.

        Raises UnknownRecordingError.
        """
        path = f"/v1/recordings/{recording_id}/captions"
        return self._pages(Caption, path, {"limit": page_size})

    def caption(self, recording_id: int) -> Job:
        """Have a worker put a recording into words. Raises UnknownRecordingError."""
        return self._ask(Job, "POST", f"/v1/recordings/{recording_id}/captions")
