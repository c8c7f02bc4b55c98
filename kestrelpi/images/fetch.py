"""`kestrelpi modules fetch`: bring files into the cache, from their publishers or from a folder.

A file appears in the cache whole and right, or not at all. What an interrupted transfer left is continued.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from kestrelpi.errors import UserError
from kestrelpi.files import fsync_folder, locked
from kestrelpi.images.fetched import CHUNK, Fetched, hash_file, mismatch

TIMEOUT = 30.0
"""Seconds without a byte after which a server is given up."""
LARGEST = 4 << 30
"""Bytes after which a transfer of unknown size is ended: nothing that a node needs is larger."""
PART = ".part"

Progress = Callable[[Fetched, int, int], None]
"""Is told the file, the bytes that are there, and all bytes (0: unknown)."""


Source = Callable[[Fetched, int], AbstractContextManager[tuple[IO[bytes], int, int]]]
"""Where files come from. It is told the file and how many bytes are there already, and opens a stream: with it come the
offset at which the stream really begins, and the size of the whole (0: unknown)."""


def bring(one: Fetched, source: Source, progress: Progress) -> bool:
    """See that the file is in the cache; whether it was brought now. Raises UserError, and then nothing is there.

    What is there already is looked at: a file with another SHA-256 than it should have is replaced.
    """
    one.required_sha256()
    try:
        one.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(one.path.parent / "lock", f"the fetching of {one.title}"):
            return _bring(one, source, progress)
    except OSError as error:
        raise UserError(f"{one.title} can't be stored: {error.strerror}", where=str(one.path.parent)) from error


def _bring(one: Fetched, source: Source, progress: Progress) -> bool:
    if one.path.is_file() and hash_file(one.path) == one.sha256:
        return False
    part = one.path.with_name(one.path.name + PART)
    resumed = part.is_file() and part.stat().st_size > 0
    found = _transfer(one, source, part, progress)
    if found != one.sha256 and resumed:  # the rest was of another file than the beginning
        part.unlink()
        found = _transfer(one, source, part, progress)
    if found != one.sha256:
        part.unlink()
        raise mismatch(one, found, one.url, f"kestrelpi modules fetch {one.module}")
    _finish(part, one)
    return True


def _transfer(one: Fetched, source: Source, part: Path, progress: Progress) -> str:
    """Complete `part`; returns its SHA-256."""
    have = part.stat().st_size if part.is_file() else 0
    limit = one.size or LARGEST
    if have > limit:
        part.unlink()
        have = 0
    with source(one, have) as (stream, begins, total), part.open("r+b" if begins else "wb") as out:
        digest = _digest_of(part, begins)
        out.truncate(begins)
        out.seek(begins)
        done = begins
        while block := stream.read(CHUNK):
            out.write(block)
            digest.update(block)
            done += len(block)
            if done > limit:
                out.truncate(0)  # so that the next try doesn't go on from here
                raise UserError(f"{one.title} is larger than the {limit} bytes that it should have", where=one.url)
            progress(one, done, one.size or total)
        if total and done < total:
            raise UserError(f"the transfer ended after {done} of {total} bytes", where=one.url, fix=AGAIN)
    return digest.hexdigest()


AGAIN = "run the same command again: it goes on from there"


def _digest_of(part: Path, length: int) -> hashlib._Hash:
    digest = hashlib.sha256()
    if length:
        with part.open("rb") as file:
            while length > 0 and (block := file.read(min(CHUNK, length))):
                digest.update(block)
                length -= len(block)
    return digest


def _finish(part: Path, one: Fetched) -> None:
    part.chmod(one.mode)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(one.path)
    fsync_folder(one.path.parent)


@contextmanager
def from_web(one: Fetched, offset: int) -> Iterator[tuple[IO[bytes], int, int]]:
    """The publisher's server, through the proxy of the environment (http_proxy, https_proxy) if there is one."""
    request = urllib.request.Request(one.url, headers={"User-Agent": "kestrelpi", "Accept-Encoding": "identity"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        with _open(request) as answer:
            yield answer, _begins(answer, offset), _total(answer)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in DISK:
            raise  # what came could not be written
        raise UserError(f"{one.title} can't be fetched: {_reason(error)}", where=one.url, fix=FOLDER) from error


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
FOLDER = "without internet here: fetch it elsewhere, and give its folder with --from"


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not request.has_header("Range"):
            raise
        error.close()  # what is there is all of it, or of another file: from the beginning
        request.remove_header("Range")
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    assert isinstance(answer, http.client.HTTPResponse)
    return answer


def _begins(answer: http.client.HTTPResponse, offset: int) -> int:
    """Where the answer's bytes belong: a server that knows no ranges sends all of them (RFC 9110, section 14.2)."""
    span = answer.headers.get("Content-Range", "")
    return offset if answer.status == http.HTTPStatus.PARTIAL_CONTENT and span.startswith(f"bytes {offset}-") else 0


def _total(answer: http.client.HTTPResponse) -> int:
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get("Content-Length", "")
    return int(whole) if whole.isdecimal() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    if isinstance(error, TimeoutError):
        return f"no byte came for {TIMEOUT:.0f} s"
    return str(getattr(error, "reason", error)) or type(error).__name__


def from_folder(folder: Path) -> Source:
    """A folder (a USB stick) with the files under their publishers' names."""

    @contextmanager
    def source(one: Fetched, offset: int) -> Iterator[tuple[IO[bytes], int, int]]:
        path = folder / one.file
        if not path.is_file():
            raise UserError(f"there is no {one.file} here", where=str(folder), fix=f"it comes from {one.url}")
        with path.open("rb") as file:
            yield file, 0, path.stat().st_size

    return source
