"""`watch`: runs and comparisons in a browser on this machine, which move while they go on.

The page asks once and is then told over server-sent events when something is new; of a trace it gets only that. The
server listens on the loopback interface and answers no request that names another host or comes from another page, so
a web page that one has open elsewhere learns nothing of one's runs. It only reads, but for what `writing` lets it say.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import quote, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from self_pruner.agent.report.page.comparisons import Comparisons, Document
from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.report.page.html import as_json, page_html
from self_pruner.agent.report.page.run_list import PLAN, find, look, run_list, stamp
from self_pruner.agent.report.page.writing import Writing, new_token
from self_pruner.agent.report.stopping import draining
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.view import View
from self_pruner.memory.errors import SelfPrunerError, SettingsError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SECONDS = 1.0  # between two looks at the files
QUIET = 15.0  # seconds after which a connection says that it lives
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)


class Loopback:
    """Refuses requests that name another host or come from another page, whatever they ask for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in HEADERS if one[0] not in known)]
            await send(message)

        headers = Request(scope).headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(host) not in LOOPBACK:
            refused = PlainTextResponse("This server answers for localhost only.\n", 421)
            await refused(scope, receive, with_headers)
        elif origin is not None and origin != f"http://{host}":
            await PlainTextResponse("This server answers its own pages only.\n", 403)(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)


class Pages:
    """The pages of what is of one kind, runs or comparisons."""

    def __init__(
        self,
        kind: str,
        file: str,
        watch: Watch,
        document: Callable[[Path, int], bytes],
        look: Callable[[Path], object],
    ) -> None:
        """Show those of one kind.

        Args:
            kind: in addresses and sentences.
            file: by which a folder of that kind is known.
            watch: finds them, and tells of what is new.
            document: makes what is shown of a folder, as JSON; of a trace what follows a byte.
            look: what is another whenever the document is.
        """
        self.kind, self.file, self.watch, self.document, self.look = kind, file, watch, document, look

    def routes(self) -> list[Route]:
        place = f"/{self.kind}/{{name:path}}"
        return [
            Route(f"{place}/data.json", self.data),
            Route(f"{place}/events", self.events),
            Route(place, self.shown),
        ]

    def folder(self, request: Request) -> Path | None:
        """What a request names, where it may be shown."""
        return self.watch.find(request.path_params["name"], self.file)

    async def shown(self, request: Request) -> Response:
        return self._none() if self.folder(request) is None else self.page(request.path_params["name"])

    async def data(self, request: Request) -> Response:
        """The document; of a trace in it what follows the byte that `from` names."""
        folder = self.folder(request)
        if folder is None:
            return JSONResponse({"error": f"The {self.kind} is gone: its folder was deleted or moved."}, 404)
        asked = request.query_params.get("from", "0")
        start = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 16 else 0
        try:
            return Response(await run_in_threadpool(self.document, folder, start), media_type="application/json")
        except (SelfPrunerError, OSError) as error:
            return JSONResponse({"error": str(error)}, 409)

    async def events(self, request: Request) -> Response:
        folder = self.folder(request)
        return self._none() if folder is None else self.watch.stream(lambda: self.look(folder))

    def page(self, name: str) -> Response:
        """The page, which asks for the rest."""
        place = f"/{self.kind}/{quote(name)}"
        live = {"name": name, "data": f"{place}/data.json", "events": f"{place}/events", self.kind: True}
        return HTMLResponse(page_html(f"Self-Pruner: {name}", {"live": live | {"only": name == self.watch.only}}))

    def _none(self) -> Response:
        return PlainTextResponse(f"There is no such {self.kind}.\n", 404)


class Watch:
    """The pages of the runs below a folder, or of one of them."""

    def __init__(
        self, base: Path, only: str | None = None, token: str | None = None, compared: Document = lambda _: {}
    ) -> None:
        """Show what is below a folder.

        Args:
            base: the folder of the runs.
            only: the run or comparison that alone is shown, by its folder's name.
            token: of those who may talk to runs; None where nobody may.
            compared: makes the document of a comparison.
        """
        self.base, self.only, self.token = base, only, token
        self.known: dict[Path, tuple[object, bytes]] = {}  # the last document of a run, with its stamp
        self.closing = False
        below = Comparisons(base, compared)
        self.run_pages = Pages("run", "settings.toml", self, self._document, stamp)
        self.comparison_pages = Pages("comparison", PLAN, self, below.document, below.look)

    def app(self) -> Starlette:
        """The application, which knows no method but GET and HEAD, and one POST where there is a token."""
        routes = [
            *(Writing(self.token, self.run_pages.folder).routes() if self.token else []),
            Route("/", self.front),
            Route("/runs.json", self.runs),
            Route("/runs/events", self.run_events),
            *self.run_pages.routes(),
            *self.comparison_pages.routes(),
        ]
        return Starlette(routes=routes, middleware=[Middleware(Loopback)])

    async def front(self, request: Request) -> Response:
        """The list; of a single run or comparison its page."""
        if self.only is not None:
            is_run = (self.base / self.only / "settings.toml").is_file()
            return (self.run_pages if is_run else self.comparison_pages).page(self.only)
        live = {"list": True, "folder": str(self.base), "data": "/runs.json", "events": "/runs/events"}
        return HTMLResponse(page_html("Self-Pruner: runs", {"live": live}))

    async def runs(self, request: Request) -> Response:
        rows = await run_in_threadpool(run_list, self.base)
        if self.only is not None:
            rows = [row for row in rows if row["id"] == self.only]
        return Response(as_json({"folder": str(self.base), "runs": rows}), media_type="application/json")

    async def run_events(self, request: Request) -> Response:
        return self.stream(lambda: look(self.base))

    def find(self, name: str, file: str) -> Path | None:
        """The folder of that name that holds `file`, where it may be shown."""
        hidden = self.only is not None and self.only not in (name, name.partition("/")[0])
        return None if hidden else find(self.base, name, file)

    def _document(self, folder: Path, start: int) -> bytes:
        """The document as JSON: made once for all who watch, until a file of the run changes."""
        now = (stamp(folder), start)
        known = self.known.get(folder)
        if known is not None and known[0] == now:
            return known[1]
        data = page_data(RunDirectory.open(folder, strict=False), start)
        made = as_json(data).encode()
        self.known[folder] = (now, made)
        return made

    def stream(self, look: Callable[[], object]) -> Response:
        """An answer of events, one whenever what `look` sees is another."""
        return StreamingResponse(
            self._changes(look), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    async def _changes(self, look: Callable[[], object]) -> AsyncIterator[str]:
        """An event at once and whenever what `look` sees is another."""
        last: object = None
        quiet = 0.0
        while not self.closing:
            now = await run_in_threadpool(look)
            quiet += SECONDS
            if now != last:
                yield "data: new\n\n"
                last, quiet = now, 0.0
            elif quiet >= QUIET:
                yield ": still here\n\n"
                quiet = 0.0
            await asyncio.sleep(SECONDS)


class _Server(uvicorn.Server):
    """Signals are heard by this program, as everywhere in it."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(
            uvicorn.Config(watch.app(), log_level="error", lifespan="off", timeout_graceful_shutdown=1, ws="none")
        )
        self.watch = watch

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    def stop(self) -> None:
        self.watch.closing = True
        self.should_exit = True


def serve(path: Path, port: int, show: bool, compared: Document, view: View) -> None:
    """Serve the run or the runs at `path` until a signal ends it.

    Args:
        path: a run directory, a comparison, or a folder of them.
        port: of the loopback interface; 0 for one that is free.
        show: whether a browser is opened.
        compared: makes the document of a comparison.
        view: where the address is said.

    Raises:
        SettingsError: there is no folder, it may not be looked into, or the port is in use.
        Stop: a signal.
    """
    if not path.is_dir():
        raise SettingsError(f"there is no folder {path} to watch: name a run or a folder of runs")
    here = path.resolve()
    one = any((here / file).is_file() for file in ("settings.toml", PLAN))
    base, only = (here.parent, here.name) if one else (here, None)
    if not os.access(base, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise SettingsError(f"no permission to look into {base}, in which runs are looked up")
    token = new_token()
    watch = Watch(base, only, token, compared)
    with _listening(port) as listener:
        server = _Server(watch)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}"
        view.line(f"Watching {path} at {address} (Ctrl-C ends it; runs go on)", whole=True)
        view.line("With this address one may pause, stop and talk to runs; without its token only look at them.", "dim")
        if show:
            webbrowser.open(address)
        with draining(server.stop):
            server.run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # who asks from now on waits until it is answered
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        raise SettingsError(f"--port {port} {why}: name another one, or 0 for any that is free") from error
    return listener


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"http://{host}").hostname or ""
    except ValueError:
        return ""
