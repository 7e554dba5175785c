"""The server answers its page, and nobody else."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest

from krelax.errors import InputError
from krelax.explore.answers import Answers
from krelax.explore.server import HOST, Server
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
    ],
)
def test_bad_requests(served: Server, path: str, body: str, status: int) -> None:
    found, text = send(served, "POST", path, body)
    assert found == status
    assert json.loads(text)["error"]


def test_requests_beyond_measure_are_not_read(served: Server) -> None:
    status, text = send(served, "POST", "/group", **{"Content-Length": "99999999"})
    assert status == 400
    assert "bytes" in json.loads(text)["error"]


def test_other_sites_learn_nothing(served: Server) -> None:
    for method, path in (("GET", "/"), ("POST", "/group")):
        assert send(served, method, path, Host=f"example.org:{served.server_address[1]}")[0] == 403
    assert send(served, "GET", "/elsewhere")[0] == 404


def test_a_taken_port_is_an_error(served: Server, answers: Answers) -> None:
    with pytest.raises(InputError, match="--port"):
        Server(answers, served.server_address[1])
