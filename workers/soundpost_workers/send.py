"""Messages to the broker; loads no model and runs no task."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import KombuError

from soundpost.errors import BrokerError
from soundpost.jobs import task_name
from soundpost.store.jobs import ToSend


class CelerySender:
    """Sends the messages of jobs through Celery."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, message: ToSend) -> None:
        """Send a message. Raises BrokerError where the broker is out of reach."""
        try:
            # Not tried again here: the caller waits, and the reconciler sends it once more anyway.
            self._app.send_task(
                task_name(message.kind), args=[message.id], queue=message.queue, retry=False
            )
        except (KombuError, OSError) as error:
            raise BrokerError(
                self._app.conf.broker_url.partition("@")[2] or None, str(error)
            ) from error
