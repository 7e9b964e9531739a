"""`workers:` of the config: a number or a mapping, and what is wrong with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import load
from pipeline.config.workers import WorkerSettings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, text: str) -> WorkerSettings | None:
    """Return what a config with this line says of workers."""
    path = folder / "config.yaml"
    path.write_text(text)
    return load(path).workers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("output: o", None),
        ("workers: null", None),
        ("workers: 3", WorkerSettings(processes=3)),
        ("workers: {}", WorkerSettings()),
        (
            "workers: {engine: ray, address: null, processes: 8, cpus: 1, pass_keys: false}",
            WorkerSettings("ray", None, 8, 1.0, pass_keys=False),
        ),
        ("workers: {address: auto, pass_keys: true}", WorkerSettings(address="auto", pass_keys=True)),
        ("workers: {address: 'head:6379', cpus: 0.5}", WorkerSettings(address="head:6379", cpus=0.5)),
        ("workers: {address: '[::1]:6379', engine: local}", WorkerSettings("local", "[::1]:6379")),
    ],
)
def test_workers_are_a_number_or_a_mapping(tmp_path: Path, text: str, expected: WorkerSettings | None) -> None:
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: 0", "workers: must be a whole number of at least 1, not 0; or a mapping"),
        ("workers: many", "workers: must be a whole number of at least 1, not 'many'"),
        ("workers: true", "workers: must be a whole number"),
        ("workers: {procs: 3}", "procs"),
        ("workers: {engine: dask}", "`dask` is not known"),
        ("workers: {address: 'ray://head:10001'}", "must be host:port"),
        ("workers: {address: head}", "must be host:port"),
        ("workers: {address: 'me@head:1'}", "must be host:port"),
        ("workers: {address: 'head:99999999'}", "must be host:port"),
        ("workers: {cpus: -1}", "cpus: must be a number of at least 0"),
        ("workers: {pass_keys: maybe}", "must be true or false"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert said in str(error.value)
