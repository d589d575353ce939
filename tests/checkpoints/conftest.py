"""A registry of one's own, and a server on this machine that has its file."""

import random
import threading
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from oasis_cli.checkpoints import registry


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder for weights; nothing is in it."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(registry.FOLDER, str(tmp_path / "weights"))
    return tmp_path / "weights"


class Server(ThreadingHTTPServer):
    """Has one file. What is wrong with it is set by its attributes."""

    daemon_threads = True

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.tag = data, '"one"'
        self.ranges, self.length = True, True
        self.cut = None  # bytes of an answer after which the connection ends
        self.status = 200
        self.lead_to = ""
        self.silent = threading.Event()
        self.silent.set()
        self.asked = []  # (path, Range, If-Range) of each request

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/toy.safetensors"

    def handle_error(self, request, client_address):
        pass  # who asked has gone


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        server = self.server
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((self.path, wanted, version))
        server.silent.wait(10)
        if server.lead_to:
            self.send_response(302)
            self.send_header("Location", server.lead_to)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges and version in (None, server.tag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(server.data) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """serve(data): a server that has it, until the test is over."""
    servers = []

    def start(data):
        server = Server(data)
        # It is asked 20 times a second whether it is to stop.
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.silent.set()
        server.shutdown()
        server.server_close()


DATA = random.Random(5).randbytes(700_000)


@pytest.fixture
def server(serve):
    return serve(DATA)


@pytest.fixture
def toy(server, monkeypatch):
    """A model of the registry that does not ship; the server has it."""
    entry = replace(
        registry.entry_of(registry.DEFAULT),
        name="toy", role="toy", file="toy.safetensors", ships=False, urls=(server.url,),
        sha256=sha256(DATA).hexdigest(), size=len(DATA),
    )  # fmt: skip
    monkeypatch.setattr(registry, "_ENTRIES", registry.registry() | {"toy": entry})
    return entry
