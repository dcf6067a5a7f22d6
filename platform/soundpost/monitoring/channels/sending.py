"""Sending, whatever the way: within its time, and with every secret kept out of what went wrong."""

from __future__ import annotations

import logging
import threading
import traceback
from pathlib import Path

from soundpost.errors import (
    ChannelRefusedError,
    ChannelUnreachableError,
    InvalidValueError,
    NotifyError,
)
from soundpost.monitoring.channels.kinds import open_target
from soundpost.monitoring.channels.target import Address, Target, hide, secrets_of
from soundpost.monitoring.notification_document import NotificationDocument

log = logging.getLogger(__name__)


def send(
    target: Target,
    address: Address,
    document: NotificationDocument,
    clip: Path | None,
    timeout_s: float,
) -> None:
    """Send a message; it has arrived when this returns.

    Raises ChannelUnreachableError where it is worth another try, ChannelRefusedError where not;
    neither quotes a secret, and neither has a cause that could.
    """
    failures: list[NotifyError] = []
    thread = threading.Thread(
        target=_try,
        args=(target, address, document, clip, timeout_s, failures),
        name="send notification",
        daemon=True,
    )
    thread.start()
    # Each step has its own limit; this one is for a peer that stays just within each.
    thread.join(timeout_s)
    if thread.is_alive():
        raise ChannelUnreachableError(target.shown, f"no answer within {timeout_s:g} s")
    if failures:
        raise failures[0] from None


def open_stored(address: Address) -> Target:
    """Open an address that was accepted before. Raises ChannelRefusedError if it is not any more."""
    try:
        return open_target(address)
    except InvalidValueError as error:
        detail = hide(str(error), secrets_of(address))
        raise ChannelRefusedError(address.kind, detail) from None


def _try(
    target: Target,
    address: Address,
    document: NotificationDocument,
    clip: Path | None,
    timeout_s: float,
    failures: list[NotifyError],
) -> None:
    secrets = secrets_of(address)
    try:
        target.send(document, clip, timeout_s)
    except (ChannelUnreachableError, ChannelRefusedError) as error:
        failures.append(_hidden(error, target.shown, secrets))
    # A library of a hundred services fails in any way; it may pass, and it is said what it was.
    except Exception as error:  # noqa: BLE001  # Noted, and told to whoever waits for it.
        log.error("sending failed: %s", hide(traceback.format_exc(), secrets))
        detail = hide(f"{type(error).__name__}: {error}", secrets)
        failures.append(ChannelUnreachableError(target.shown, detail))


def _hidden(error: NotifyError, shown: str, secrets: set[str]) -> NotifyError:
    value = shown if error.value == shown else hide(str(error.value), secrets)
    masked = type(error)(value, hide(error.detail, secrets))
    if isinstance(error, ChannelUnreachableError) and isinstance(masked, ChannelUnreachableError):
        masked.retry_after_s = error.retry_after_s
    return masked
