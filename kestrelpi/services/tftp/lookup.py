"""From a request to packets: what is asked for, whether it may be had, and in blocks of which size."""

from __future__ import annotations

import logging

from kestrelpi.services.tftp.blocks import BlockCache, Prepared
from kestrelpi.services.tftp.packets import Agreed, ErrorCode, Request, agree
from kestrelpi.services.tftp.source import EventKind, FileSource, PathRefused, TransferEvent, normalise

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with an ERROR."""

    def __init__(self, code: ErrorCode, text: str, event: TransferEvent) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        """What the client is told."""
        self.event = event
        """What everybody else is."""


def look_up(request: Request, host: str, source: FileSource, cache: BlockCache) -> tuple[Prepared, Agreed]:
    """The packets that the client at the address `host` asks for, until their release; raises Refused."""

    def refused(code: ErrorCode, text: str, kind: EventKind = "refused", detail: str = "") -> Refused:
        return Refused(code, text, TransferEvent(kind, request.path, host, detail=detail))

    if request.write:
        raise refused(ErrorCode.ACCESS, "this server is read-only", detail="this server is read-only")
    if request.mode != "octet":
        raise refused(ErrorCode.ILLEGAL, "only mode octet is served", detail="only mode octet is served")
    try:
        normalise(request.path)
        file = source.find(request.path, host)
        if file is None:
            raise refused(ErrorCode.NOT_FOUND, "file not found", "missing")
        agreed = agree(request.options, file.size)
        prepared = cache.acquire(file, agreed.block)
    except PathRefused as problem:
        why = "the path leads out of what is served"
        raise refused(ErrorCode.ACCESS, "access violation", detail=why) from problem
    except OSError as problem:
        code = ErrorCode.NOT_FOUND if isinstance(problem, FileNotFoundError) else ErrorCode.ACCESS
        log.error("TFTP %s for %s: %s", request.path, host, problem)
        raise refused(code, "can't be read", "missing", str(problem)) from problem
    if prepared.size != file.size:  # it changed since it was found
        agreed = agree(request.options, prepared.size)
    return prepared, agreed
