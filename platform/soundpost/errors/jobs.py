"""Jobs, their queue and their workers."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


class JobError(SoundpostError):
    """A job cannot be handled."""

    code = "job"


class UnknownJobError(JobError):
    """There is no such job."""

    code = "unknown-job"
    remedy = "List them: soundpost jobs."


class JobStateError(JobError):
    """The job is in another state."""

    code = "job-state"
    remedy = "Only failed and cancelled jobs are retried, only unfinished ones are cancelled."


class QueueFullError(JobError):
    """Too many jobs of this source are waiting."""

    code = "queue-full"
    remedy = "Try again when some are done, start more workers, or raise SOUNDPOST_QUEUE_LIMIT."


class DiskFullError(SoundpostError):
    """There is too little free space to take anything in."""

    code = "disk-full"
    remedy = "Free some space, or lower SOUNDPOST_DISK_RESERVE_BYTES; it goes on by itself then."


class BrokerError(JobError):
    """The message broker cannot be used."""

    code = "broker"
    remedy = "Check SOUNDPOST_BROKER_URL and that the broker runs; jobs wait in the database."


class WorkerLostError(JobError):
    """The worker died or stalled while it had the job."""

    code = "worker-lost"
    remedy = "See the worker's log of that time; a file that kills workers should be taken out."
