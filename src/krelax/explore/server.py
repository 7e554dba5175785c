"""A server for one page on this machine: the page, and answers as JSON.

It listens on this machine only, and answers nobody but its own page: other sites that a browser shows may send
requests, too, which are told by their `Host` and `Origin`.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore
from typing import Any

from krelax.errors import InputError, internal
from krelax.explore.answers import Answers
from krelax.explore.page import page

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_LONGEST = 1 << 16  # bytes of a request
_AT_ONCE = 32  # connections; a browser has six
_PATIENCE = 15.0  # seconds for which a connection may be silent
# Other sites may neither show the page in a frame nor read it as anything else.
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serves one question; `url` says where. Port 0 is any free one. Raises InputError where the port is taken."""

    daemon_threads = True

    def __init__(self, answers: Answers, port: int = 0) -> None:
        self.answers, self.html = answers, page(answers.question).encode()
        self._places = BoundedSemaphore(_AT_ONCE)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; choose another, or leave it out") from None
        own = self.server_address[1]
        self.hosts = {f"{name}:{own}" for name in _NAMES} | (set(_NAMES) if own == 80 else set())

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, if there are not too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What a connection's thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line about what nobody has foreseen; nothing about browsers that have gone."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            print(f"krelax: {internal(error)}; please report this", file=sys.stderr, flush=True)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = default_request_version = "HTTP/1.1"
    timeout = _PATIENCE
    wbufsize = -1  # head and body in one packet: the second of two waits until the first is acknowledged
    connection: socket.socket

    def do_GET(self) -> None:
        """The page."""
        if not self._meant_for_us():
            return
        if self._length() != 0:
            self._refuse(400, "a request for the page has no body")
        elif self.path.partition("?")[0] != "/":
            self._refuse(404, "not found")
        else:
            self._send(200, self.server.html, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """An answer: the path is its name, the body a JSON object with what is given."""
        if not self._meant_for_us():
            return
        try:
            given = self._given()
        except InputError as error:
            self._refuse(400, str(error))
            return
        code, found = self._answer(self.path.removeprefix("/"), given)
        self._send(code, json.dumps(found).encode(), "application/json")

    def _answer(self, name: str, given: dict[str, Any]) -> tuple[int, Any]:
        """The status and the answer to a question of this name."""
        if not self.server.answers.knows(name):
            return 404, {"error": f"nothing is called {self.path[:100]}"}
        try:
            found = self.server.answers.answer(name, given)
            json.dumps(found, allow_nan=False)  # JSON has no other numbers
            return 200, found
        except InputError as error:
            return 400, {"error": str(error)}
        except Exception as error:
            return 500, {"error": internal(error)}

    def _given(self) -> dict[str, Any]:
        """The object in the body of a request."""
        length = self._length()
        if length is None:
            raise InputError(f"a request has one length, of at most {_LONGEST} bytes")
        body = self.rfile.read(length)
        if len(body) < length:
            raise InputError(f"a request of {length} bytes ends after {len(body)}")
        try:
            given = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}") from None
        if not isinstance(given, dict):
            raise InputError("a request is a JSON object")
        return given

    def _length(self) -> int | None:
        """Bytes of the body; None if they are too many, or not said in the only way that is understood here."""
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) > 1 or "Transfer-Encoding" in self.headers:
            return None
        text = lengths[0] if lengths else "0"
        return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) <= _LONGEST else None

    def _meant_for_us(self) -> bool:
        """Whether the browser asked for this machine by its own name, and for this very page."""
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        ours = {f"http://{host}" for host in self.server.hosts}
        if len(hosts) == 1 and hosts[0].lower() in self.server.hosts and {o.lower() for o in origins} <= ours:
            return True
        self._refuse(403, "this page is for this machine only")
        return False

    def _refuse(self, code: int, why: str) -> None:
        """One line; what else the connection brings is not understood."""
        self.close_connection = True
        self._send(code, json.dumps({"error": why}).encode(), "application/json", {"Connection": "close"})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Where the request itself is malformed, or of another kind."""
        self._refuse(code, message or HTTPStatus(code).phrase)

    def _send(self, code: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS, **(more or {})}
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""
