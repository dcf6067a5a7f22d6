"""Jobs on both databases: leased by one worker at a time, never lost, never doubled, never stuck."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import data, integers, sampled_from

from soundpost.errors import EmptyFileError, JobStateError, QueueFullError, UnknownJobError
from soundpost.store import jobs, sources
from soundpost.store.session import Store

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
LEASE_S = 60.0


def new(key: str, **values: object) -> jobs.NewJob:
    return jobs.NewJob("embed", key, "embed", due_at=START, **values)  # type: ignore[arg-type]  # any field


@pytest.fixture
def job_id(store: Store) -> int:
    with store.session() as session:
        return jobs.add(session, new("one", max_attempts=2))[0].id


def state_of(store: Store, job_id: int) -> str:
    with store.reading() as session:
        return jobs.get(session, job_id).state


def take(store: Store, job_id: int, worker: str = "w", after_s: float = 0.0) -> jobs.Leased | None:
    with store.session() as session:
        now = START + timedelta(seconds=after_s)
        return jobs.lease(session, job_id, worker, LEASE_S, now=now)


def must_take(store: Store, job_id: int, worker: str = "w", after_s: float = 0.0) -> jobs.Leased:
    leased = take(store, job_id, worker, after_s)
    assert leased is not None
    return leased


def test_the_same_work_is_one_job_until_it_is_finished(store: Store) -> None:
    with store.session() as session:
        first, is_new = jobs.add(session, new("one", payload={"recording": 7}))
        again, is_again = jobs.add(session, new("one"))
        assert (is_new, is_again, again.id) == (True, False, first.id)
    leased = must_take(store, first.id)
    assert leased.payload == {"recording": 7}
    with store.session() as session:
        assert jobs.complete(session, leased)
        later, is_new = jobs.add(session, new("one"))
        assert is_new
        assert later.id > first.id


def test_a_job_belongs_to_one_worker(store: Store, job_id: int) -> None:
    leased = must_take(store, job_id, "a")
    assert take(store, job_id, "b") is None
    with store.session() as session:
        assert jobs.complete(session, leased)
    assert take(store, job_id, "b") is None
    assert state_of(store, job_id) == "done"


def test_nobody_gets_a_job_that_is_not_due_or_does_not_exist(store: Store, job_id: int) -> None:
    assert take(store, job_id, after_s=-1) is None
    assert take(store, job_id + 1) is None


def test_eight_threads_share_the_jobs_without_doing_one_twice(store: Store) -> None:
    with store.session() as session:
        made = {jobs.add(session, new(f"job {number}"))[0].id for number in range(40)}
    taken: list[int] = []
    lock = threading.Lock()

    def work(worker: str) -> None:
        while True:
            with store.session() as session:
                got = jobs.lease_more(session, "embed", worker, LEASE_S, 3, now=START)
            if not got:
                return
            with lock:
                taken.extend(job.id for job in got)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(made)


def test_the_urgent_go_first_and_the_oldest_among_them(store: Store) -> None:
    with store.session() as session:
        old = jobs.add(session, new("old", priority=jobs.BACKFILL))[0].id
        live = jobs.add(session, new("live", priority=jobs.LIVE))[0].id
        later = jobs.add(session, new("later", priority=jobs.LIVE))[0].id
    with store.session() as session:
        taken = jobs.lease_more(session, "embed", "w", LEASE_S, 2, now=START)
    assert [job.id for job in taken] == [live, later]
    assert state_of(store, old) == "queued"


def test_a_failure_is_tried_again_later_and_parked_after_the_last_attempt(
    store: Store, job_id: int
) -> None:
    leased = must_take(store, job_id)
    with store.session() as session:
        assert jobs.fail(session, leased, ValueError("first"), now=START) == "queued"
    assert take(store, job_id) is None
    again = must_take(store, job_id, after_s=jobs.BACKOFF_S)
    with store.session() as session:
        assert jobs.fail(session, again, ValueError("second")) == "failed"
    with store.reading() as session:
        job = jobs.get(session, job_id)
        assert (job.state, job.attempts, job.error_code) == ("failed", 2, "unexpected")
        assert "ValueError: second" in (job.error_detail or "")


def test_what_cannot_get_better_is_parked_at_once(store: Store, job_id: int) -> None:
    leased = must_take(store, job_id)
    with store.session() as session:
        assert jobs.fail(session, leased, EmptyFileError("a.wav"), final=True) == "failed"
        assert jobs.get(session, job_id).error_code == "empty-file"


def test_a_parked_job_can_be_run_again_with_all_its_attempts(store: Store, job_id: int) -> None:
    for after_s in (0.0, 600.0):
        leased = must_take(store, job_id, after_s=after_s)
        with store.session() as session:
            jobs.fail(session, leased, ValueError("no"), now=START)
    with store.session() as session:
        assert jobs.retry(session, job_id).attempts == 0
        assert jobs.take_unsent(session, 60.0)[0].id == job_id


def test_running_again_is_refused_where_it_makes_no_sense(store: Store, job_id: int) -> None:
    with store.session() as session, pytest.raises(JobStateError, match="queued"):
        jobs.retry(session, job_id)
    with store.session() as session, pytest.raises(UnknownJobError):
        jobs.retry(session, job_id + 1)
    with store.session() as session:
        jobs.cancel(session, job_id)
        jobs.add(session, new("one"))
    with store.session() as session, pytest.raises(JobStateError, match="another job"):
        jobs.retry(session, job_id)


def test_a_cancelled_job_is_not_completed_by_the_worker_that_had_it(
    store: Store, job_id: int
) -> None:
    leased = must_take(store, job_id)
    with store.session() as session:
        jobs.cancel(session, job_id)
        assert jobs.renew(session, [leased], LEASE_S) == set()
        assert not jobs.complete(session, leased)
        assert jobs.fail(session, leased, ValueError()) is None
        with pytest.raises(JobStateError):
            jobs.cancel(session, job_id)
    assert state_of(store, job_id) == "cancelled"


def test_the_job_of_a_dead_worker_goes_to_another_and_the_dead_one_is_ignored(
    store: Store, job_id: int
) -> None:
    dead = must_take(store, job_id, "dead")
    with store.session() as session:
        assert jobs.release_lapsed(session, now=START + timedelta(seconds=LEASE_S + 1)) == [job_id]
    alive = must_take(store, job_id, "alive", after_s=LEASE_S + jobs.LONGEST_BACKOFF_S)
    with store.session() as session:
        assert not jobs.complete(session, dead)
        assert jobs.complete(session, alive)


def test_a_job_that_ends_its_workers_is_parked_and_not_taken_along(store: Store) -> None:
    with store.session() as session:
        poison = jobs.add(session, new("poison", max_attempts=2))[0].id
    for _ in range(2):
        must_take(store, poison, after_s=3600.0)
        with store.session() as session:
            jobs.release_lapsed(session, now=START + timedelta(hours=2))
            assert jobs.lease_more(session, "embed", "w", LEASE_S, 9) == []
            jobs.get(session, poison).due_at = START
    with store.reading() as session:
        job = jobs.get(session, poison)
        assert (job.state, job.error_code) == ("failed", "worker-lost")


def test_a_renewed_lease_does_not_lapse(store: Store, job_id: int) -> None:
    leased = must_take(store, job_id)
    later = START + timedelta(seconds=LEASE_S + 1)
    with store.session() as session:
        assert jobs.renew(session, [leased], LEASE_S, now=later) == {job_id}
        assert jobs.release_lapsed(session, now=later) == []


def test_what_a_stopping_worker_gives_back_counts_as_untried(store: Store, job_id: int) -> None:
    leased = must_take(store, job_id)
    with store.session() as session:
        jobs.give_back(session, [leased])
        taken = jobs.lease_more(session, "embed", "other", LEASE_S, 1, now=START)
    assert [(job.id, job.attempts) for job in taken] == [(job_id, 1)]


def test_messages_are_sent_once_and_again_when_nothing_came_of_them(
    store: Store, job_id: int
) -> None:
    def sent(after_s: float) -> list[int]:
        with store.session() as session:
            now = START + timedelta(seconds=after_s)
            return [job.id for job in jobs.take_unsent(session, 30.0, now=now)]

    assert sent(-1) == []
    assert sent(0) == [job_id]
    assert sent(29) == []
    assert sent(31) == [job_id]
    must_take(store, job_id, after_s=31)
    assert sent(120) == []


def test_a_source_has_only_so_many_unfinished_jobs(store: Store) -> None:
    with store.session() as session:
        source = sources.ensure(session, "pump")
        jobs.add(session, new("a", source_id=source.id))
        jobs.check_room(session, source.id, 2)
        jobs.add(session, new("b", source_id=source.id))
        with pytest.raises(QueueFullError, match="2"):
            jobs.check_room(session, source.id, 2)


def test_counts_and_lists_agree_and_old_jobs_can_be_removed(store: Store, job_id: int) -> None:
    with store.session() as session:
        other = jobs.add(session, new("two"))[0].id
        jobs.cancel(session, other)
        assert jobs.counts(session) == {("embed", "queued"): 1, ("embed", "cancelled"): 1}
        assert [job.id for job in jobs.find(session, state="cancelled")] == [other]
        assert [job.id for job in jobs.find(session, after_id=job_id)] == [other]
        assert jobs.remove_finished(session, START + timedelta(days=400)) == 1
        assert [job.id for job in jobs.find(session)] == [job_id]


def test_waiting_doubles_with_jitter_and_has_an_end() -> None:
    waits = [jobs.backoff_s(1, attempt) for attempt in range(1, 12)]
    for attempt, wait_s in enumerate(waits):
        longest = min(jobs.LONGEST_BACKOFF_S, jobs.BACKOFF_S * 2**attempt)
        assert longest / 2 <= wait_s <= longest
    assert jobs.backoff_s(1, 3) == waits[2] != jobs.backoff_s(2, 3)


def test_no_order_of_events_loses_or_doubles_a_job(store: Store) -> None:
    """Whatever workers, crashes, people and the reconciler do, in any order."""
    runs = count()

    class Life(RuleBasedStateMachine):
        """A clock, some workers, and what they believe to hold."""

        def __init__(self) -> None:
            super().__init__()
            self.run, self.now, self.made = next(runs), START, 0
            self.held: list[jobs.Leased] = []
            self.done: list[int] = []
            self.ids: list[int] = []

        @rule()
        def add(self) -> None:
            with store.session() as session:
                key = f"run {self.run} job {self.made}"
                job = jobs.NewJob(f"k{self.run}", key, "embed", due_at=self.now, max_attempts=3)
                self.ids.append(jobs.add(session, job)[0].id)
            self.made += 1

        @rule(limit=integers(1, 3))
        def take(self, limit: int) -> None:
            with store.session() as session:
                kind = f"k{self.run}"
                self.held += jobs.lease_more(session, kind, "w", LEASE_S, limit, now=self.now)

        @precondition(lambda self: self.ids)
        @rule(choice=data())
        def deliver(self, choice: object) -> None:
            job_id = choice.draw(sampled_from(self.ids))  # type: ignore[attr-defined]  # hypothesis
            with store.session() as session:
                if leased := jobs.lease(session, job_id, "w", LEASE_S, now=self.now):
                    self.held.append(leased)

        @precondition(lambda self: self.held)
        @rule(choice=data(), fails=integers(0, 2))
        def end(self, choice: object, fails: int) -> None:
            leased = choice.draw(sampled_from(self.held))  # type: ignore[attr-defined]  # hypothesis
            self.held.remove(leased)
            with store.session() as session:
                if fails:
                    jobs.fail(session, leased, ValueError("no"), now=self.now)
                elif jobs.complete(session, leased):
                    self.done.append(leased.id)

        @rule(seconds=sampled_from([1, 59, 61, 700]))
        def wait(self, seconds: int) -> None:
            self.now += timedelta(seconds=seconds)

        @rule()
        def reconcile(self) -> None:
            with store.session() as session:
                jobs.release_lapsed(session, now=self.now)

        @invariant()
        def each_is_done_once_and_none_is_stuck(self) -> None:
            assert len(self.done) == len(set(self.done))
            with store.reading() as session:
                for job in jobs.find(session, kind=f"k{self.run}", limit=None):
                    assert (job.state == "done") == (job.id in self.done)
                    assert (job.lease is not None) == (job.state == "running")
                    assert job.attempts <= 3

        def teardown(self) -> None:
            """At the end, workers that work bring every job to an end."""
            for _ in range(12):
                self.now += timedelta(seconds=700)
                self.reconcile()
                for job_id in self.ids:
                    with store.session() as session:
                        if leased := jobs.lease(session, job_id, "w", LEASE_S, now=self.now):
                            jobs.complete(session, leased)
            with store.reading() as session:
                left = {job.state for job in jobs.find(session, kind=f"k{self.run}", limit=None)}
            assert left <= {"done", "failed"}

    Life.TestCase.settings = settings(max_examples=15, stateful_step_count=20)
    Life.TestCase().runTest()
