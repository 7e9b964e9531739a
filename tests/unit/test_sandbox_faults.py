"""Fault injection is the same in every run with the same seed."""

from __future__ import annotations

from collections import Counter

from pipeline.sandbox.faults import pick_download_fault, plan_faults
from pipeline.sandbox.settings import CALL_FAULTS, Faults, SandboxSettings


def test_a_run_is_repeatable_and_another_seed_is_another_run() -> None:
    settings = SandboxSettings(faults=Faults(http_500=0.5), latency_seconds=(1.0, 2.0))
    run = [plan_faults(settings, number) for number in range(50)]
    assert run == [plan_faults(settings, number) for number in range(50)]
    other = SandboxSettings(faults=Faults(http_500=0.5), latency_seconds=(1.0, 2.0), seed=1)
    assert run != [plan_faults(other, number) for number in range(50)]
    assert all(1.0 <= plan.latency <= 2.0 for plan in run)


def test_each_fault_occurs_as_often_as_its_probability() -> None:
    settings = SandboxSettings(faults=Faults(**dict.fromkeys(CALL_FAULTS, 0.1)))
    chosen = Counter(plan_faults(settings, number).fault for number in range(3000))
    assert chosen.keys() == {*CALL_FAULTS, None}
    assert all(200 < count < 400 for count in chosen.values())


def test_faults_of_downloads_and_calls_are_independent() -> None:
    settings = SandboxSettings(faults=Faults(cut_download=1.0))
    assert plan_faults(settings, 0).fault is None
    assert pick_download_fault(settings, 0) == "cut_download"
