"""The server answers its page, and nobody else."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress
from http.client import HTTPConnection
from threading import Thread, active_count
from typing import Any

import pytest

from krelax.errors import InputError
from krelax.explore import server as server_module
from krelax.explore.answers import Answers
from krelax.explore.server import HOST, Server, _Handler
from krelax.explore.small import group


def send(server: Server, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
    """The status and the body of an answer."""
    connection = HTTPConnection(HOST, server.server_address[1], timeout=60)
    connection.request(method, path, body.encode(), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_the_page_and_its_answers(served: Server) -> None:
    status, html = send(served, "GET", "/")
    assert status == 200
    assert html.startswith("<!doctype html>")
    given: dict[str, Any] = {"bounds": [2.0] * 8, "slopes": [0, 0], "direction": [1, 1]}
    status, found = send(served, "POST", "/group", json.dumps(given))
    assert status == 200
    assert json.loads(found) == group(**given)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/group", "{", 400),
        ("/group", "[]", 400),
        ("/group", '{"bounds": [NaN], "slopes": [], "direction": []}', 400),
        ("/group", '{"unknown": 1}', 400),
        ("/other", "{}", 404),
        ("/../answers.py", "{}", 404),
        ("/group", "[" * 60_000, 400),
        ("/group", '{"a":' * 10_000, 400),
        ("/neuron", '{"lower": "a", "upper": [], "slope": {}}', 400),
        ("/neuron", '{"lower": 1e999, "upper": 2, "slope": 0}', 400),
        ("/neuron", '{"lower": -1e308, "upper": 1e308, "slope": 0}', 400),
        ("/network", '{"chosen": [[7, 9]]}', 400),
        ("/network", '{"chosen": [[0, 0]]}', 400),
        ("/network", '{"chosen": 3}', 400),
        ("/network", '{"chosen": [["0"]]}', 400),
        ("/group", '{"bounds": [], "slopes": [], "direction": []}', 400),
        ("/group", '{"bounds": [1, 2], "slopes": [0, 0], "direction": [1, 1]}', 400),
        ("/layers", '{"self": 1}', 400),
    ],
)
def test_bad_requests(served: Server, path: str, body: str, status: int) -> None:
    found, text = send(served, "POST", path, body)
    assert found == status
    assert json.loads(text)["error"]
    assert "\n" not in text


def raw(server: Server, request: bytes) -> bytes:
    """Everything that is answered to some bytes, until the server closes the connection."""
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(request)
        with suppress(OSError):  # who refuses may have closed it already
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts)


def post(server: Server, *lines: str, body: bytes = b"{}") -> bytes:
    """The bytes of a request to `group`, with these lines in its head."""
    host = f"Host: {HOST}:{server.server_address[1]}"
    return "\r\n".join(["POST /group HTTP/1.1", host, *lines, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: \xb2"],
        ["Content-Length: -1"],
        ["Content-Length: 1e3"],
        ["Content-Length: 99999999999999999999"],
        ["Content-Length: 2", "Content-Length: 2"],
        ["Content-Length: 500"],
        ["Transfer-Encoding: chunked"],
    ],
)
def test_lengths_that_cannot_be_right(served: Server, lines: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """The connection ends with the refusal: what follows is not taken for another request."""
    answer = raw(served, post(served, *lines) + post(served, "Content-Length: 2"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n\r\n", 403),
    ],
)
def test_malformed_requests(served: Server, request_: bytes, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    answer = raw(served, request_)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"\n" not in body
    assert json.loads(body)["error"]
    assert capfd.readouterr() == ("", "")


def test_browsers_that_go_away_are_nothing_to_talk_about(served: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        with socket.create_connection(served.server_address[:2]) as connection:
            linger = struct.pack("ii", 1, 0)  # the other side sees a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(post(served, "Content-Length: 2"))
    assert send(served, "GET", "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_connections_that_say_nothing_are_few_and_end(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_AT_ONCE", 4)
    monkeypatch.setattr(_Handler, "timeout", 0.2)
    with Server(answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        before = active_count()
        silent = [socket.create_connection(server.server_address[:2], timeout=60) for _ in range(12)]
        for connection in silent:  # those that found no place, and those that were silent for too long
            assert connection.recv(1) == b""
            assert active_count() <= before + 4
            connection.close()
        assert send(server, "GET", "/")[0] == 200
        server.shutdown()


def test_what_nobody_has_foreseen_is_one_line(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Answers, name: str, given: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(Answers, "answer", failing)
    status, text = send(served, "POST", "/group", "{}")
    assert (status, json.loads(text)) == (500, {"error": "internal error: RuntimeError: two lines"})


def test_requests_beyond_measure_are_not_read(served: Server) -> None:
    status, text = send(served, "POST", "/group", **{"Content-Length": "99999999"})
    assert status == 400
    assert "bytes" in json.loads(text)["error"]


def test_other_sites_learn_nothing(served: Server) -> None:
    for method, path in (("GET", "/"), ("POST", "/group")):
        port = served.server_address[1]
        for host in (f"example.org:{port}", f"127.0.0.1.example.org:{port}", f"{HOST}:{port + 1}", HOST, ""):
            assert send(served, method, path, Host=host)[0] == 403
        for origin in ("http://example.org", "null", f"https://{HOST}:{port}", f"http://{HOST}:{port + 1}"):
            assert send(served, method, path, Origin=origin)[0] == 403
        for name in (HOST, "localhost", "LocalHost"):
            given = "{}" if method == "POST" else ""
            own = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
            assert send(served, method, path, given, **own)[0] != 403
    assert send(served, "GET", "/elsewhere")[0] == 404


def test_a_taken_port_is_an_error(served: Server, answers: Answers) -> None:
    with pytest.raises(InputError, match="--port"):
        Server(answers, served.server_address[1])
