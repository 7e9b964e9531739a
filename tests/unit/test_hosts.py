"""Where a host is, by its name alone."""

from __future__ import annotations

import pytest

from pipeline.config.hosts import place_of


@pytest.mark.parametrize(
    ("place", "hosts"),
    [
        ("loopback", ["localhost", "LOCALHOST.", "api.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]),
        ("loopback", ["::ffff:127.0.0.1"]),
        ("private", ["box", "gpu.lan", "GPU.LAN.", "nas.local", "host.docker.internal", "a.home.arpa", "x.corp"]),
        ("private", ["10.0.0.7", "172.16.0.1", "192.168.1.2", "169.254.1.1", "100.64.0.1", "fd00::7", "fe80::1%eth0"]),
        ("private", ["::ffff:10.0.0.7"]),
        (
            "open",
            ["api.openai.com", "lan.example", "a.notlan", "8.8.8.8", "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8"],
        ),
    ],
)
def test_the_place_of_a_host(place: str, hosts: list[str]) -> None:
    for host in hosts:
        assert place_of(host) == place, host
