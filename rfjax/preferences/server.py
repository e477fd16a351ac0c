"""The page and its answers over HTTP: the standard library's server, one static page, and pictures by opaque ids.

    GET  /                 the page
    GET  /picture/ID       a picture that was shown to somebody
    POST /next             {"rater"}                       what the rater's page shows
    POST /vote             {"rater", "item", "choice", "ms"}  writes a vote, and says what comes next
    POST /undo             {"rater"}                       takes the last vote back

Nothing else is served, and no path of a request becomes a path of a file. A POST needs the token of the address that
the command printed. A request with a Host that is not this server's is refused, so that a page of another site whose
name was bound anew to this address (DNS rebinding) can read nothing; so is a POST with a foreign Origin.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from rfjax.errors import UserError, printable
from rfjax.preferences.ballots import Ballots, Refused
from rfjax.untrusted import Unreadable, parse_json

PAGE = Path(__file__).with_name("page.html")
PICTURE = re.compile(r"/picture/([0-9a-f]{32})")
LARGEST_REQUEST = 4096  # bytes of a vote: a name of 40 letters, an id, a choice
IDLE_SECONDS = 60.0  # after which a connection is closed
HTTP_PORT = 80  # which browsers leave out
LOCAL = ("127.0.0.1", "localhost", "::1")


class Server(ThreadingHTTPServer):
    """Serves one session of votes."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], ballots: Ballots) -> None:
        """Binds to a host and a port; port 0 takes a free one.

        Raises:
            UserError: if it can't.
        """
        host, port = address
        self.ballots, self.token = ballots, secrets.token_urlsafe(16)
        self.page = PAGE.read_bytes()
        self.policy = _policy(self.page.decode())
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            what = getattr(error, "strerror", None) or error
            raise UserError(f"the server can't listen on {host}, port {port} ({what}): try --port 0") from error
        self.host, self.port = host, self.server_address[1]

    def server_bind(self) -> None:
        """Without the standard library's question to a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def address(self) -> str:
        """What a rater opens; the token stands where browsers don't send it on."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/#{self.token}"

    @property
    def open_to_others(self) -> bool:
        """Whether other machines reach it."""
        return self.host not in LOCAL

    def knows(self, netloc: str | None) -> bool:
        """Whether a Host, or the host of an Origin, is this server: a name of it, or an address, and its port."""
        try:
            parts = urlsplit(f"//{netloc or ''}")
            name, port = parts.hostname or "", parts.port or HTTP_PORT
        except ValueError:
            return False
        if parts.username is not None or port != self.port:
            return False
        names = {*LOCAL, self.host} if not self.open_to_others else {*LOCAL, self.host, socket.gethostname().lower()}
        return name in names or (self.open_to_others and _is_address(name))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; others are said in a line, and the server goes on."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(printable(f"a request failed ({type(error).__name__}: {error})"), file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rfjax", ""
    timeout = IDLE_SECONDS
    server: Server

    def do_GET(self) -> None:
        if not self.server.knows(self.headers.get("Host")):
            self._refuse(HTTPStatus.FORBIDDEN, "this server has another name: open the address that it printed")
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        elif self.path == "/favicon.ico":  # which browsers ask for
            self._send(HTTPStatus.NO_CONTENT, "image/png", b"")
        elif found := PICTURE.fullmatch(self.path):
            try:
                self._send(HTTPStatus.OK, "image/png", self.server.ballots.picture(found[1]))
            except Refused as refused:
                self._refuse(refused.status, str(refused))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page here")

    def do_POST(self) -> None:
        try:
            given, ballots = self._request(), self.server.ballots
            names = {"/next": ("rater",), "/vote": ("rater", "item", "choice", "ms"), "/undo": ("rater",)}[self.path]
            act = {"/next": ballots.next, "/vote": ballots.vote, "/undo": ballots.undo}[self.path]
            self._answer(HTTPStatus.OK, act(*(given.get(name) for name in names)))
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except UserError as error:
            print(printable(f"rfjax: {error}"), file=sys.stderr)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the vote can't be written: the terminal says why")

    def _request(self) -> dict[str, Any]:
        """The JSON object of a POST.

        Raises:
            Refused: if it comes from elsewhere than our page, is too long, or is none.
        """
        size = self.headers.get("Content-Length") or ""
        self.close_connection = True  # until the body is read: a part of it is no next request
        if not self.server.knows(self.headers.get("Host")):
            raise Refused(HTTPStatus.FORBIDDEN, "this server has another name: open the address that it printed")
        origin = self.headers.get("Origin")
        if origin is not None and not (origin.startswith("http://") and self.server.knows(origin[len("http://") :])):
            raise Refused(HTTPStatus.FORBIDDEN, "another site's page can't vote here")
        if self.path not in ("/next", "/vote", "/undo"):
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page here")
        if not hmac.compare_digest((self.headers.get("X-Token") or "").encode(), self.server.token.encode()):
            raise Refused(
                HTTPStatus.FORBIDDEN, "this page is of another server: open the address that was printed last"
            )
        if not re.fullmatch(r"\d{1,4}", size) or int(size) > LARGEST_REQUEST:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has a length, of {LARGEST_REQUEST} at most")
        body = self.rfile.read(int(size))
        self.close_connection = False
        try:
            return parse_json(body, "the request")
        except Unreadable as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _answer(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._answer(status, {"error": sentence})

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses itself: a method or a line that it can't read."""
        self.close_connection = True
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


def _policy(page: str) -> str:
    """The Content-Security-Policy: the page's own style and script by their hashes, our pictures, and nothing else."""
    hashes = {}
    for tag in ("style", "script"):
        text = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        hashes[tag] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    own = "; ".join(f"{tag}-src 'sha256-{found}'" for tag, found in hashes.items())
    outside = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"default-src 'none'; {own}; img-src 'self'; connect-src 'self'; {outside}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
