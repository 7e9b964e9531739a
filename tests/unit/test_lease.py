"""A worker's lease counts on the worker's own clock, from a moment that the run has repeated."""

from __future__ import annotations

import math

import pytest

from pipeline.ledger.workers import LEASE_SECONDS
from pipeline.ray import lease as module
from pipeline.ray.lease import Lease, LeaseOverError


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "clock", made)
    return made


def test_nothing_may_be_sent_before_the_first_renewal(clock: Clock) -> None:
    lease = Lease()
    assert lease.over_for == math.inf
    with pytest.raises(LeaseOverError):
        lease.check()
    lease.renew(clock.now)
    lease.check()


def test_it_ends_five_seconds_after_the_repeated_moment_however_late_that_arrives(clock: Clock) -> None:
    lease, stated = Lease(), clock.now
    clock.now += 3
    lease.renew(stated)
    clock.now = stated + LEASE_SECONDS - 0.01
    lease.check()
    clock.now = stated + LEASE_SECONDS
    with pytest.raises(LeaseOverError):
        lease.check()
    clock.now += 2
    assert lease.over_for == pytest.approx(2)


def test_an_older_renewal_that_arrives_late_shortens_nothing(clock: Clock) -> None:
    lease = Lease()
    lease.renew(clock.now)
    lease.renew(clock.now - 60)
    lease.renew(-math.inf)
    lease.check()


def test_it_can_begin_again(clock: Clock) -> None:
    lease = Lease()
    lease.renew(clock.now)
    clock.now += 3600
    lease.renew(clock.now)
    lease.check()


def test_the_clock_never_goes_back() -> None:
    moments = [module.clock() for _ in range(1000)]
    assert moments == sorted(moments)
