"""The only thing that a page may write: what is said to a run, by whoever was given the address with the token in it.

The token is made when the server starts and is printed in its address. The page's script sends it as a header of its
own, which no other page can make a browser send without asking first; and that is refused.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from self_pruner.agent.run_files.steering import request as ask
from self_pruner.agent.run_files.steering import tell
from self_pruner.memory.errors import SelfPrunerError

HEADER = "x-token"
LARGEST = 4096  # bytes of what is said


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


class Writing:
    """The routes that write."""

    def __init__(self, token: str, folder: Callable[[Request], Path | None]) -> None:
        """`folder` finds the run that a request names."""
        self.token, self.folder = token, folder

    def routes(self) -> list[Route]:
        return [Route("/token", self.known), Route("/run/{name:path}/say", self.say, methods=["POST"])]

    async def known(self, request: Request) -> Response:
        """Whether the token is this server's, without which a page shows no buttons."""
        return Response(status_code=204) if self._holds(request) else _refused(403, "This is not the token.")

    async def say(self, request: Request) -> Response:
        """`{"tell": "..."}` or `{"request": "pause" | "go on" | "stop"}`: what came of it, in a sentence."""
        if not self._holds(request):
            return _refused(403, "Open the address that was printed when the server was started: it has the token.")
        folder = self.folder(request)
        if folder is None:
            return _refused(404, "The run is gone: its folder was deleted or moved.")
        said = await _content(request)
        if said is None:
            return _refused(400, "This says nothing to a run.")
        try:
            return JSONResponse({"said": await run_in_threadpool(_carry_out, folder, *said)})
        except (SelfPrunerError, OSError) as error:
            return _refused(409, str(error))

    def _holds(self, request: Request) -> bool:
        return secrets.compare_digest(request.headers.get(HEADER, "").encode(), self.token.encode())


async def _content(request: Request) -> tuple[str, str] | None:
    """What is said, and how; None where it is neither a note nor a request."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            return None
    try:
        content: Any = json.loads(body)
        ((how, what),) = content.items()
    except (ValueError, AttributeError, RecursionError):
        return None
    known = isinstance(what, str) and (how == "tell" or how == "request" and what in ("pause", "go on", "stop"))
    return (how, what) if known else None


def _carry_out(folder: Path, how: str, what: Any) -> str:
    if how == "request":
        return ask(folder, what)
    tell(folder, what)
    return "The brain reads it from its next turn on."


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)
