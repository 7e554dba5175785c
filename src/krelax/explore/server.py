"""A server for one page on this machine: the page, and answers as JSON."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from krelax.errors import InputError
from krelax.explore.answers import Answers
from krelax.explore.page import page

HOST = "127.0.0.1"
_LONGEST = 1 << 16  # bytes of a request


class Server(ThreadingHTTPServer):
    """Serves one question; `url` says where. Port 0 is any free one. Raises InputError where the port is taken."""

    daemon_threads = True

    def __init__(self, answers: Answers, port: int = 0) -> None:
        self.answers, self.html = answers, page(answers.question).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; choose another, or leave it out") from None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: the second of two waits until the first is acknowledged

    def do_GET(self) -> None:
        """The page."""
        if not self._meant_for_us():
            return
        if self.path.partition("?")[0] != "/":
            self._send(404, b"not found", "text/plain")
        else:
            self._send(200, self.server.html, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """An answer: the path is its name, the body a JSON object with what is given."""
        if not self._meant_for_us():
            return
        try:
            code, found = 200, self.server.answers.answer(self.path.removeprefix("/"), self._given())
        except InputError as error:
            code, found = 400, {"error": str(error)}
        except KeyError:
            code, found = 404, {"error": f"nothing is called {self.path}"}
        self._send(code, json.dumps(found, allow_nan=False).encode(), "application/json")

    def _given(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _LONGEST:
            self.close_connection = True
            raise InputError(f"a request has a length, of at most {_LONGEST} bytes")
        try:
            given = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError as error:
            raise InputError(f"not JSON: {error}") from None
        if not isinstance(given, dict):
            raise InputError("a request is a JSON object")
        return given

    def _meant_for_us(self) -> bool:
        """Whether the browser asked for this machine by its own name: other sites may not read the answers."""
        name = self.headers.get("Host", "").rpartition(":")[0]
        if name in {HOST, "localhost"}:
            return True
        self._send(403, b"this page is for this machine only", "text/plain")
        return False

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""
