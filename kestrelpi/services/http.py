"""The HTTP endpoint: how nodes report and ask (see node_api), what runs here for `kestrelpi status`, and metrics.

Plain text for busybox's wget and nc. One small server in the daemon's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kestrelpi.errors import UserError
from kestrelpi.nodes.models import Identity, board
from kestrelpi.services.metrics import CONTENT_TYPE
from kestrelpi.services.neighbours import mac_of
from kestrelpi.services.node_api import LATER, Client, NodeApi, Refused

log = logging.getLogger("kestrelpi")

HOLD = 4.0
"""Seconds before a node that has to wait is told so, if it then still has to; it gives us 10."""
BODY_LIMIT = 4096
"""Bytes of a report that are read."""
KEPT_LIMIT = 16 * 2**20
"""Bytes that a node can leave with us at once: a swarm's manager leaves its log of services, compressed."""


def application(
    api: NodeApi, status: Callable[[], dict[str, Any]], metrics: Callable[[], str], hold: float = HOLD
) -> Starlette:
    """The routes. `metrics` gives the text of `/metrics`; `hold`: seconds before a node is told to wait."""

    async def time(request: Request) -> Response:
        return PlainTextResponse(f"{api.clock():.3f}\n")

    async def stage(request: Request) -> Response:
        detail = (await body(request)).decode("utf-8", "replace").strip()
        api.stage(client(request), request.path_params["stage"], detail)
        return Response(status_code=204)

    async def boot(request: Request) -> Response:
        asking = client(request), said(request), request.query_params.get("generation", "")
        answer = api.boot(*asking)
        if answer == LATER:  # hundreds may wait, and each asks again a second after its answer
            await asyncio.sleep(hold)
            answer = api.boot(*asking)
        return PlainTextResponse(answer + "\n")

    async def runtime(request: Request) -> Response:
        archive = api.runtime_archive(client(request), request.query_params.get("token", ""))
        return Response(archive, media_type="application/x-tar")

    async def kept(request: Request) -> Response:
        asked = (client(request), bearer(request), request.path_params["module"], request.path_params["name"])
        if request.method == "POST":
            api.keep(*asked, await body(request, KEPT_LIMIT))
            return Response(status_code=204)
        return Response(api.kept(*asked), media_type="application/octet-stream")

    async def show_status(request: Request) -> Response:
        return JSONResponse(status())

    async def show_metrics(request: Request) -> Response:
        return PlainTextResponse(metrics(), media_type=CONTENT_TYPE)

    async def refused(request: Request, error: Exception) -> Response:
        log.warning("refused %s to %s: %s", request.url.path, request.client.host if request.client else "us", error)
        return PlainTextResponse(f"{error}\n", status_code=getattr(error, "status", 400))

    async def failed(request: Request, error: Exception) -> Response:
        """Something here is not as it should be, such as a module's file: the node's console says so too."""
        log.error("can't answer %s: %s", request.url.path, error)
        return PlainTextResponse(f"{error}\n", status_code=503)

    routes = [
        Route("/v1/time", time),
        Route("/v1/stage/{stage}", stage, methods=["POST"]),
        Route("/v1/boot", boot),
        Route("/v1/runtime", runtime),
        Route("/v1/kept/{module}/{name}", kept, methods=["GET", "POST"]),
        Route("/v1/status", show_status),
        Route("/metrics", show_metrics),
    ]
    return Starlette(routes=routes, exception_handlers={Refused: refused, UserError: failed})


def client(request: Request) -> Client:
    """Who asks, with the MAC that the neighbour table has for the address."""
    if request.client is None:
        raise Refused(403, "this is for nodes: ask over the network")
    return Client(request.client.host, request.client.port, mac_of(request.client.host))


def said(request: Request) -> Identity:
    """What the initramfs says of its Pi. The device tree's serial has 16 digits; the low 8 are the TFTP prefix."""
    query = request.query_params

    def number(name: str) -> int:
        text = query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0

    serial = query.get("serial", "").lower()[-8:]
    hexadecimal = len(serial) == 8 and all(one in "0123456789abcdef" for one in serial)
    return Identity(
        serial=serial if hexadecimal else "",
        model=board(query.get("model", "").replace("_", " ")),
        memory_mb=number("memory"),
        cpus=number("cpus"),
    )


async def body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The request's body; Refused when it is longer than `limit`."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise Refused(413, f"the body is longer than {limit} bytes")
    return bytes(content)


def bearer(request: Request) -> str:
    """The key that a node shows (RFC 6750 section 2.1); empty when it shows none."""
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.isascii() else ""


class HttpServer(uvicorn.Server):
    """uvicorn inside our loop: the daemon, not uvicorn, decides what a signal means."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Http:
    """The endpoint on `host`:`port` for nodes, and on the unix socket `control` for commands on the frontend."""

    def __init__(self, app: Starlette, host: str, port: int, control: Path) -> None:
        self.host = host
        self.port = port
        self.control = control
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=3, limit_concurrency=2048
        )
        self._server = HttpServer(settings)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve; raises UserError when the port is taken."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise UserError(
                f"HTTP can't listen on {self.host} port {self.port}: {error.strerror}",
                where="services.http.port",
                fix=f"see who has it: ss -ltnp 'sport = :{self.port}'",
            ) from error
        listener.listen(1024)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener, self._control_socket()]))

    def _control_socket(self) -> socket.socket:
        """Only root reaches it; also across network namespaces, where the lab's services run."""
        self.control.parent.mkdir(parents=True, exist_ok=True)
        self.control.unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(str(self.control))
        self.control.chmod(0o600)
        control.listen(16)
        return control

    async def stop(self) -> None:
        """Let running answers end, then close."""
        if self._task:
            self._server.should_exit = True
            await self._task
            self.control.unlink(missing_ok=True)
