"""The way from outside to a test homeserver: what an ingress does in production, in the standard library alone.

Public side: the client API, `.well-known`, and a refusal of the admin API, which no browser may reach. A second side,
TLS with a certificate of the private CA, passes everything: the internal address of a homeserver whose CA only a Secret
knows. Run as a program by `synapse.py`; it imports nothing of ours, so it starts quickly.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_PATIENCE = 330.0  # longer than any client's long poll
_BLOCK = 64 * 1024
_MAX_BODY = 110 * 1024 * 1024
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE
    disable_nagle_algorithm = True  # headers and body are separate writes: else each answer waits 40 ms for an ACK
    server: Server

    def setup(self) -> None:
        if self.server.tls is not None:
            # Here, in the connection's own thread: a client that never finishes its handshake holds up nobody.
            self.request.settimeout(20)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle_request(self) -> None:
        path = self.path.split("?", 1)[0]
        if path == "/.well-known/matrix/client":
            self._answer(200, {"m.homeserver": {"base_url": self._own_url()}})
        elif ".." in unquote(path).split("/") or "//" in path:
            self._error(400, "M_UNRECOGNIZED", f"not a path of the Matrix API: {path}")
        elif self.server.tls is not None or path.startswith(("/_matrix/", "/_synapse/client/")):
            self._forward()
        elif path.startswith("/_synapse/admin"):
            self._error(403, "M_FORBIDDEN", "the admin API is not reachable from outside")
        else:
            self._error(404, "M_UNRECOGNIZED", f"nothing is served at {path}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = handle_request

    def _own_url(self) -> str:
        """The URL by which this caller came, if it is one of ours: pods and the host use different names."""
        host = self.headers.get("Host", "")
        known = host.rpartition(":")[0] in self.server.names
        return f"http://{host}" if known else self.server.public_url

    def _forward(self) -> None:
        body = self._body()
        if body is None:
            return
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=_PATIENCE)
        answering = False
        try:
            # A connection for each request: one that Synapse closed in between would have to be retried, and a retried
            # POST is sent twice. On loopback a new one costs a fraction of a millisecond.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP | {"content-length", "x-forwarded-for"}:
                    upstream.putheader(name, value)
            came_from = self.headers.get("X-Forwarded-For")
            client = str(self.client_address[0])
            # Synapse believes the first address: test clients name one of their own there, as people have.
            upstream.putheader("X-Forwarded-For", f"{came_from}, {client}" if came_from else client)
            upstream.putheader("X-Forwarded-Proto", "https" if self.server.tls is not None else "http")
            if body or self.command in ("POST", "PUT", "PATCH"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            answering = True
            self._pass_on(answer)
        except (OSError, http.client.HTTPException) as error:
            self.close_connection = True
            if not answering:
                with contextlib.suppress(OSError):
                    self._error(502, "M_UNKNOWN", f"the homeserver did not answer: {type(error).__name__}")
        finally:
            upstream.close()

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status, answer.reason)
        has_length = False
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
                has_length |= name.lower() == "content-length"
        empty = self.command == "HEAD" or answer.status in (204, 304)
        chunked = not has_length and not empty
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if empty:
            return
        while block := answer.read1(_BLOCK):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _body(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.close_connection = True
            self._error(411, "M_UNKNOWN", "send a Content-Length: this proxy takes no chunked requests")
            return None
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self.close_connection = True
            self._error(413, "M_TOO_LARGE", f"a body of {length} bytes is not accepted")
            return None
        return self.rfile.read(int(length))

    def _error(self, status: int, code: str, text: str) -> None:
        self._answer(status, {"errcode": code, "error": text})

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response_only(status)
        for name, text in (*_CORS.items(), ("Content-Type", "application/json"), ("Content-Length", str(len(data)))):
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: Synapse logs each request, and without the query string, in which tokens may be."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, options: argparse.Namespace) -> None:
        super().__init__(address, Handler)
        self.tls = tls
        host, _, port = str(options.upstream).rpartition(":")
        self.upstream = (host, int(port))
        self.public_url = str(options.public_url)
        self.names = set(options.name)

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of the own name, which can wait for a DNS server that is not there.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception() if sys.version_info >= (3, 12) else sys.exc_info()[1]
        if not isinstance(error, OSError):  # a client that went away is no error of ours
            super().handle_error(request, client_address)


def main() -> None:
    parser = argparse.ArgumentParser(description="reverse proxy of a test homeserver")
    parser.add_argument("--address", action="append", required=True, help="listen here; may be repeated")
    parser.add_argument("--port", type=int, required=True, help="port of the public side")
    parser.add_argument("--tls-port", type=int, required=True, help="port of the TLS side, which passes everything")
    parser.add_argument("--tls-cert", required=True)
    parser.add_argument("--tls-key", required=True)
    parser.add_argument("--upstream", required=True, help="host:port of the homeserver")
    parser.add_argument("--public-url", required=True, help="for .well-known, if the caller used no known name")
    parser.add_argument("--name", action="append", default=[], help="a host name that .well-known may repeat")
    options = parser.parse_args()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.tls_cert, options.tls_key)
    servers = [
        Server((address, port), context, options)
        for address in options.address
        for port, context in ((options.port, None), (options.tls_port, tls))
    ]
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
