"""The HTTP server of the page: checks every request, and answers it in a thread that has a ``Recognizer``.

Protection, in the order of the checks:

- at most MAX_CONNECTIONS at once, others get 503; a request must be complete within REQUEST_S, however slow it is sent;
- ``Host`` must be localhost, an IP address or the host of ``--host``: a page elsewhere whose name was pointed here
  ("DNS rebinding") has another one;
- ``Origin``, if given, must be this server; every call of the API needs the header HEADER, which a page elsewhere can
  only send after asking this server (CORS), and it never agrees;
- bodies are JSON of a stated length of at most MAX_BODY bytes, and few of them may be large at once, so that memory is
  bounded; files of the page are read once, at the start: no path of a request is ever opened.

Connections are read by a thread each, so that slow clients do not keep the few workers that compute waiting.
"""

import contextlib
import io
import ipaddress
import json
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.recognizer import OtherSpeakerError, Recognizer
from voice_biometrics.serve.api import REQUESTS, Request, parse_request

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADER = "X-Voice-Biometrics"
MAX_BODY = 16 * 2**20  # bytes
LARGE_BODY, MAX_LARGE_BODIES = 2**20, 4  # bytes; such bodies in memory at once, others wait
MAX_CONNECTIONS = 48
REQUEST_S = 20.0  # for a client to send a request, and then to read the answer
ANSWER_S = 30.0  # for a worker to be free and answer
LINGER_S = 2.0  # for a client to end, after an answer
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Workers:
    """A few threads, each with its own ``Recognizer`` made by ``make``; InputError as ``Recognizer``."""

    def __init__(self, make: Callable[[], Recognizer], number: int) -> None:
        self.local = threading.local()
        recognizers = [make() for _ in range(number)]
        self.pool = ThreadPoolExecutor(number, "recognizer", lambda: vars(self.local).update(own=recognizers.pop()))

    def answer(self, request: Request) -> dict[str, Any]:
        """Return the answer; InputError as ``Recognizer``, TimeoutError if no worker is free within ANSWER_S."""
        future = self.pool.submit(lambda: request.answer(self.local.own))
        try:
            return future.result(ANSWER_S)
        finally:
            future.cancel()

    def close(self) -> None:
        """Finish what is being computed, and end the threads."""
        self.pool.shutdown(cancel_futures=True)


class Server(socketserver.ThreadingTCPServer):
    """The HTTP server, with a bounded number of connections."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a slow client does not delay the end
    request_queue_size = 128

    def __init__(self, host: str, port: int, workers: Workers) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.host, self.workers = host, workers
        self.slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.large_bodies = threading.BoundedSemaphore(MAX_LARGE_BODIES)
        self.files = {f"/{path.name}": (path.read_bytes(), TYPES[path.suffix]) for path in PAGE.iterdir()}
        self.files["/"] = self.files.pop("/index.html")
        super().__init__((host, port), Handler)

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Start a thread for a connection, or refuse it."""
        if self.slots.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no further thread can be started
                self.slots.release()
                raise
            return
        with contextlib.suppress(OSError):
            request.settimeout(0.1)
            request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:
        """Serve a connection, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """Print a fault of this program; clients that go away are none."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class DeadlineReader(io.RawIOBase):
    """Reads a socket until a deadline, which many small pieces do not extend."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.connection, self.end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read what is there; TimeoutError after the deadline."""
        remaining = self.end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the request was not complete in time")
        self.connection.settimeout(remaining)
        return self.connection.recv_into(buffer)


class Refusal(Exception):
    """A request that is not answered: a status, and why."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One request of a connection."""

    server: Server
    server_version, sys_version = "voice-biometrics", ""

    def setup(self) -> None:
        """Read with a deadline."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(DeadlineReader(self.connection, REQUEST_S))

    def finish(self) -> None:
        """Read what was not needed of a request: closing the connection before would reset it, and lose the answer."""
        super().finish()
        rest, discarded = DeadlineReader(self.connection, LINGER_S), bytearray(2**16)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while rest.readinto(memoryview(discarded)):
                pass

    def do_GET(self) -> None:
        """Answer with a file of the page, or by the API."""
        self._respond()

    def do_POST(self) -> None:
        """Answer by the API."""
        self._respond()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: requests are private."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not HTTP, with this server's headers."""
        self._send(HTTPStatus(code), {"kind": "fault", "error": HTTPStatus(code).phrase})

    def _respond(self) -> None:
        try:
            status, content = HTTPStatus.OK, self._answer()
        except OtherSpeakerError as error:
            status = HTTPStatus.CONFLICT
            content = {"kind": "another_speaker", "error": str(error), "recordings": error.places}
        except InputError as error:
            status, content = HTTPStatus.UNPROCESSABLE_ENTITY, {"kind": "input", "error": str(error)}
        except Refusal as error:
            status, content = error.status, {"kind": "fault", "error": str(error)}
        except OSError:  # the client went away, or was too slow
            if not isinstance(sys.exception(), TimeoutError):
                raise
            status, content = HTTPStatus.SERVICE_UNAVAILABLE, {"kind": "busy", "error": "too slow, or too busy"}
        except Exception:
            traceback.print_exc()
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, {"kind": "fault", "error": "a fault of the server"}
        self._send(status, content)

    def _answer(self) -> dict[str, Any] | tuple[bytes, str]:
        """Return JSON, or content and type of a file of the page."""
        self._check_host()
        path = urlsplit(self.path).path if self.path.startswith("/") else self.path
        if self.command == "GET" and path == "/healthz":
            return {"status": "ok"}
        if self.command == "GET" and path in self.server.files:
            return self.server.files[path]
        if (kind := REQUESTS.get((self.command, path))) is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        if self.headers.get(HEADER) != "1":
            raise Refusal(HTTPStatus.FORBIDDEN, f"expected the header {HEADER}: 1")
        if self.command == "GET":
            return self.server.workers.answer(kind())
        length = self._length()
        with self.server.large_bodies if length > LARGE_BODY else contextlib.nullcontext():
            return self.server.workers.answer(parse_request(kind, self._body(length)))

    def _check_host(self) -> None:
        hosts, origin = self.headers.get_all("Host", []), self.headers.get("Origin")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._is_here(host):
            raise Refusal(HTTPStatus.FORBIDDEN, "open this page as localhost, or by the address that was printed")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refusal(HTTPStatus.FORBIDDEN, "other sites may not use this page")

    def _is_here(self, host: str) -> bool:
        """Tell if a ``Host`` can only mean this server."""
        try:
            name = None if "@" in host else urlsplit(f"//{host}").hostname
            if name in ("localhost", self.server.host):
                return True
            ipaddress.ip_address(name or "")
        except ValueError:
            return False
        return True

    def _length(self) -> int:
        """Return the length of a body that may be read."""
        if self.headers.get("Content-Type") != "application/json":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1 or not lengths[0].isdecimal():
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "expected one Content-Length")
        if len(lengths[0]) > 12 or int(lengths[0]) > MAX_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY // 2**20} MiB")
        return int(lengths[0])

    def _body(self, length: int) -> bytes:
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    def _send(self, status: HTTPStatus, content: dict[str, Any] | tuple[bytes, str]) -> None:
        """Send JSON or a file, once, with the headers that every answer has."""
        is_json = isinstance(content, dict)
        body, kind = (json.dumps(content).encode(), "application/json") if is_json else content
        self.close_connection = True
        self.connection.settimeout(REQUEST_S)
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
