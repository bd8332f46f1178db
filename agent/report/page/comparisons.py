"""The page of a comparison in `watch`, live: its figures, and how far those of its runs are that go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from self_pruner.agent.report.page.html import as_json, page_html
from self_pruner.agent.report.page.run_list import FINISHED, PLAN, row_of, runs_below, stamp, stat_of
from self_pruner.memory.errors import SelfPrunerError

Document = Callable[[Path], dict[str, Any]]  # of the comparison in a folder; whoever starts the server knows how


class Comparisons:
    """The routes of comparisons."""

    def __init__(
        self,
        base: Path,
        document: Document,
        find: Callable[[str], Path | None],
        stream: Callable[[Callable[[], object]], Response],
    ) -> None:
        """Show those below a folder.

        Args:
            base: the folder of the runs.
            document: makes what is shown of one.
            find: the folder of the comparison of that name, where it may be shown.
            stream: an answer of events, one whenever what it looks at is another.
        """
        self.base, self.document, self.find, self.stream = base, document, find, stream
        self.known: dict[Path, tuple[object, dict[str, Any]]] = {}  # the last document, with the stamp of its records

    def routes(self) -> list[Route]:
        return [
            Route("/comparison/{name:path}/data.json", self.data),
            Route("/comparison/{name:path}/events", self.events),
            Route("/comparison/{name:path}", self.shown),
        ]

    async def shown(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _gone() if self.find(name) is None else self.page(name)

    async def data(self, request: Request) -> Response:
        """The document, and `going`: the runs that are not finished, as the list of runs has them."""
        folder = self.find(request.path_params["name"])
        if folder is None:
            return JSONResponse({"error": "The comparison is gone: its folder was deleted or moved."}, 404)
        try:
            return Response(await run_in_threadpool(self._content, folder), media_type="application/json")
        except (SelfPrunerError, OSError) as error:
            return JSONResponse({"error": str(error)}, 409)

    async def events(self, request: Request) -> Response:
        folder = self.find(request.path_params["name"])
        return _gone() if folder is None else self.stream(lambda: (_records(folder), self._going_stamp(folder)))

    def page(self, name: str, *, only: bool = False) -> Response:
        """The page, which asks for the rest."""
        place = f"/comparison/{quote(name)}"
        live = {"comparison": True, "name": name, "data": f"{place}/data.json", "events": f"{place}/events"}
        return HTMLResponse(page_html(f"Self-Pruner: {name}", {"live": live | {"only": only}}))

    def _content(self, folder: Path) -> bytes:
        now = _records(folder)
        known = self.known.get(folder)
        if known is None or known[0] != now:
            known = self.known[folder] = (now, self.document(folder))
        going = [row_of(self.base, run) for run in self._going(folder)]
        return as_json({**known[1], "going": going}).encode()

    def _going(self, folder: Path) -> list[Path]:
        """Its run directories whose record is not written yet."""
        inside = (run for run in runs_below(self.base) if run.is_relative_to(folder) and run != folder)
        return [run for run in inside if not (run.parent / FINISHED).is_file()]

    def _going_stamp(self, folder: Path) -> list[object]:
        return [(str(run), stamp(run)) for run in self._going(folder)]


def _records(folder: Path) -> list[object]:
    """What changes whenever a run of the comparison is finished, or it has grown."""
    files = [folder / PLAN, folder / "dense.json", *sorted((folder / "runs").glob(f"*/{FINISHED}"))]
    return [(str(file), stat_of(file)) for file in files]


def _gone() -> Response:
    return PlainTextResponse("There is no such comparison.\n", 404)
