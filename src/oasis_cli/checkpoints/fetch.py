"""Bring a registered model's file onto this disk: over HTTP(S), resumed, and checked by SHA-256.

    FOLDER/NAME-HASH.safetensors          there if and only if it is whole and the right one
    FOLDER/.NAME-HASH.safetensors.part    what has arrived; the next fetch goes on from there
    FOLDER/.NAME-HASH.safetensors.from    what the server called the version of that, and the hash
                                          of its address: the address itself may hold a password

The proxies of the environment are used, as everywhere: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.
"""

import errno
import hashlib
import http.client
import json
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oasis_cli import __version__
from oasis_cli.checkpoints.registry import FOLDER, Entry, sha256, user_folder
from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.media.atomic import commit, discard, in_work

PATIENCE = 30.0
"""Seconds that a server may be silent."""

PIECE = 1 << 18
"""Bytes that are written at a time."""

SPARE = 1 << 20
"""Bytes that stay free on the disk."""

Tell = Callable[[int, int], None]
"""Told how many bytes of how many are there."""


class _WrongFile(WeightsError):
    """The bytes are all there, and they are another file's."""


def fetch(entry: Entry, source: str | None = None, tell: Tell = lambda done, total: None) -> Path:
    """The file of a model, brought from `source` or its own addresses if it is not on this disk.

    Raises UsageError for what is no address, and WeightsError when the file cannot be had; then
    nothing is in its place, and what has arrived is kept for the next time.
    """
    urls = list(entry.urls) if source is None else [source]
    for url in urls:
        _check_address(url)
    here = entry.path
    if here is not None and sha256(here) == entry.sha256:
        return here
    if not urls and entry.fetched:
        raise WeightsError(f"{here} is not what was released", hint=entry.remedy)
    if not urls:
        raise WeightsError(
            f"{entry.name} comes with oasis and has no address of its own",
            hint=f"install oasis again, or name one: oasis weights fetch {entry.name} --from URL",
        )
    target = _target(entry)
    try:
        with in_work(target):
            _from_any(entry, urls, target, tell)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise WeightsError(
            f"{target} cannot be written: {error.strerror or error}",
            hint="what has arrived is kept: the same command goes on"
            + (", once there is room" if full else ""),
        ) from error
    return target


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
        right = right and url.isascii() and url.isprintable() and " " not in url
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:  # UnicodeError is one
        right = False
    if not right:
        raise UsageError(f"{url!r} is not an address", hint="an address begins with https://")
    if parts.username is not None:
        raise UsageError("an address with a password in it is not possible", hint="leave it out")


def _target(entry: Entry) -> Path:
    """The place for a fetched file, in a folder that is there. Raises WeightsError."""
    folder = user_folder()
    hint = f"name a folder of yours: {FOLDER}=FOLDER oasis weights fetch {entry.name}"
    if folder is None:
        raise WeightsError("there is no home folder to put weights into", hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"the folder {folder} cannot be made: {error.strerror or error}", hint=hint
        ) from error
    if not os.access(folder, os.W_OK):
        raise WeightsError(f"the folder {folder} may not be written to", hint=hint)
    target = folder / entry.fetched_name
    if target.is_dir():
        raise WeightsError(f"{target} is a folder", hint="move it away")
    return target


def _from_any(entry: Entry, urls: list[str], target: Path, tell: Tell) -> None:
    """From the first address that has the file. Raises what is wrong with the last one."""
    for number, url in enumerate(urls, 1):
        download = _Download(entry, url, target, tell)
        try:
            try:
                download.run()
            except _WrongFile:
                if not download.resumed:
                    raise
                download.run()  # its beginning was another file's, and is gone now
            return
        except WeightsError:
            if number == len(urls):
                raise


@dataclass(slots=True)
class _Download:
    """One file from one address."""

    entry: Entry
    url: str
    target: Path
    tell: Tell
    resumed: bool = False
    """Whether it went on from bytes of an earlier time."""

    @property
    def _part(self) -> Path:
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def _origin(self) -> Path:
        return self.target.with_name(f".{self.target.name}.from")

    def run(self) -> None:
        """Get what is missing, check it and put it in place."""
        if self._part.is_symlink():
            discard(self._part)  # whoever made it, it may lead to any file
        there = self._part.stat().st_size if self._part.exists() else 0
        self.resumed = there > 0
        if there < self.entry.size:
            self._get(there)
        self._check()
        commit(self._part, self.target)
        discard(self._origin)

    def _get(self, there: int) -> None:
        request = urllib.request.Request(self.url, headers={"User-Agent": f"oasis/{__version__}"})
        if there:
            request.add_header("Range", f"bytes={there}-")
            if version := self._version():
                request.add_header("If-Range", version)
        with self._speaking():
            response = _opener().open(request, timeout=PATIENCE)
        with response:
            start = _start(response) if response.status == http.client.PARTIAL_CONTENT else 0
            if start not in (0, there):
                raise self._failed("it sent another part of the file than was asked for")
            self.resumed = start > 0  # else the server has no ranges, or another version
            self._check_size(response, start)
            self._check_space(self.entry.size - there)
            self._note_version(response)
            self._copy(response, start)

    def _copy(self, response: Any, start: int) -> None:
        done = start
        with self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while True:
                self.tell(done, self.entry.size)
                with self._speaking():
                    piece = response.read(PIECE)
                done += len(piece)
                if not piece or done > self.entry.size:
                    break
                file.write(piece)
        if done > self.entry.size:
            discard(self._part)
            discard(self._origin)
            raise self._other_size("more")
        if done < self.entry.size:
            raise self._failed(f"the connection was cut after {done} of {self.entry.size} bytes")

    def _check(self) -> None:
        found = sha256(self._part)
        if found != self.entry.sha256:
            discard(self._part)
            discard(self._origin)
            raise _WrongFile(
                f"what {self._host} has is not the released {self.entry.name}: its SHA-256 is "
                f"{found}",
                hint="nothing of it was kept; try another address: --from URL",
            )

    def _check_size(self, response: Any, start: int) -> None:
        """A page that says "log in" is not worth reading to its end."""
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and start + int(length) != self.entry.size:
            raise self._other_size(str(start + int(length)))

    def _other_size(self, found: str) -> WeightsError:
        return WeightsError(
            f"what {self._host} has is not the released {self.entry.name}: it has {found} bytes, "
            f"not {self.entry.size}",
            hint="try another address: --from URL",
        )

    def _check_space(self, missing: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if free < missing + SPARE:
            raise WeightsError(
                f"{missing >> 20} MiB are to come and {free >> 20} MiB are free in "
                f"{self.target.parent}",
                hint=f"make room, or name another folder: {FOLDER}=FOLDER",
            )

    def _version(self) -> str:
        """What this address called the version of what has arrived; "" where nobody knows."""
        try:
            known = json.loads(self._origin.read_text(encoding="utf-8"))
            return str(known["version"]) if known["address"] == self._address else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _note_version(self, response: Any) -> None:
        tag = response.headers.get("ETag", "")
        version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        known = {"address": self._address, "version": version}
        discard(self._origin)  # else what is written goes through a link that lies there
        self._origin.write_text(json.dumps(known), encoding="utf-8")

    @property
    def _address(self) -> str:
        return hashlib.sha256(self.url.encode()).hexdigest()

    @property
    def _host(self) -> str:
        """The server's name: the rest of an address may hold a password."""
        return urlsplit(self.url).hostname or ""

    def _failed(self, why: str, hint: str = "") -> WeightsError:
        kept = self._part.exists() and self._part.stat().st_size > 0
        go_on = "what has arrived is kept: the same command goes on from there"
        by_hand = f"check the network, or put the file at {self.target} by hand"
        return WeightsError(
            f"{self.entry.name} could not be fetched from {self._host}: {why}"
            f"{_through_proxy(self.url)}",
            hint=hint or (go_on if kept else by_hand),
        )

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Around what may fail on the way: errors of the network become a sentence."""
        try:
            yield
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and self.resumed:
                discard(self._part)
                raise _WrongFile(f"{self._host} has no such part of the file") from error
            hint = "the file may have moved: --from URL" if error.code in (403, 404, 410) else ""
            error.close()
            said = f"{error.code} {error.reason}".splitlines()[0]
            raise self._failed(f"it answered {said}", hint) from error
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise self._failed(_words(getattr(error, "reason", error))) from error


def _opener() -> urllib.request.OpenerDirector:
    """For HTTP and HTTPS alone: a server may lead to another address, but to no file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _start(response: Any) -> int:
    """Where a part of a file begins, by its header; -1 where that cannot be read."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _words(cause: object) -> str:
    """Why the network failed."""
    if isinstance(cause, TimeoutError):
        return f"it was silent for {PATIENCE:.0f} seconds"
    if isinstance(cause, http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted ({cause.verify_message})"
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(cause) or type(cause).__name__


def _through_proxy(url: str) -> str:
    """Which proxy was in between: not its whole address, for that may hold a password."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    try:
        host = urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname
    except ValueError:
        host = None
    host = host or "that cannot be read"
    return f" (through the proxy {host} of {parts.scheme.upper()}_PROXY)"
