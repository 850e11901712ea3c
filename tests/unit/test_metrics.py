# SPDX-License-Identifier: Apache-2.0
"""The metrics endpoint as an HTTP server: one page, and no patience for anything else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client.core import CounterMetricFamily, Metric

from flexha.errors import StartError
from flexha.shell import metrics
from flexha.shell.metrics import MetricsServer, merged


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def some() -> list[Metric]:
    return [CounterMetricFamily("flexha_test", "A number", value=3)]


def run(story: Callable[[int], Awaitable[None]]) -> None:
    async def whole() -> None:
        port = free_port()
        server = MetricsServer(("127.0.0.1", port), some)
        await server.start()
        try:
            await story(port)
        finally:
            server.stop()

    asyncio.run(whole())


async def fetch(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if not request.endswith(b"\r\n\r\n"):
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("path", [b"/metrics", b"/metrics?name=x"])
def test_the_page(path: bytes) -> None:
    async def story(port: int) -> None:
        answer = await fetch(port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"flexha_test_total 3.0" in body

    run(story)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
        (b"\r\n\r\n", b"HTTP/1.1 405"),
        (b"half a requ", b""),
        (b"x" * 20000 + b"\r\n\r\n", b""),
    ],
)
def test_anything_else(request_: bytes, answer: bytes) -> None:
    async def story(port: int) -> None:
        try:
            assert (await fetch(port, request_))[:12] == answer
        except ConnectionResetError:
            assert answer == b""
        assert b"200 OK" in await fetch(port, b"GET /metrics HTTP/1.1\r\n\r\n")

    run(story)


def test_slow_clients_are_few_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_TIMEOUT_S", 0.2)

    async def story(port: int) -> None:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(metrics.CONNECTIONS_MAX)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""  # turned away
        writer.close()
        for slow_reader, slow_writer in slow:
            assert await slow_reader.read() == b""  # cut
            slow_writer.close()
        assert b"200 OK" in await fetch(port, b"GET /metrics HTTP/1.1\r\n\r\n")

    run(story)


def test_a_port_in_use_is_named() -> None:
    async def story(port: int) -> None:
        with pytest.raises(StartError, match=r"metrics: TCP 127.*; free it, or set nodes\.X\.metrics"):
            await MetricsServer(("127.0.0.1", port), some).start()

    run(story)


def test_samples_of_one_name_stand_together() -> None:
    parts = [CounterMetricFamily("flexha_x", "x", labels=["port"]) for _ in range(2)]
    for name, part in zip(("lan", "wan"), parts, strict=True):
        part.add_metric([name], 1)
    (whole,) = merged(parts)
    assert [sample.labels["port"] for sample in whole.samples] == ["lan", "wan"]
