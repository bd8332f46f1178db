"""An OpenAI-compatible endpoint: what it serves, whether it takes schemas, and its refusals in a sentence."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from self_pruner.agent.brain.schema import response_format, text_of, too_deep
from self_pruner.memory.errors import BrainError
from self_pruner.tools.text.redaction import redact, without_keys

KEY = "SELF_PRUNER_BRAIN_KEY"  # the environment variable with the endpoint's key
CONNECT_SECONDS = 10.0
HERE = ("localhost", "127.0.0.1", "::1")  # asked without the proxy that the environment may name
PROBE_SECONDS = 60.0
LARGEST = 4 << 20  # bytes of an answer
_SAID = 200  # characters of a server's own words that are quoted


class EndpointError(BrainError):
    """The endpoint cannot be reached, refuses what it is asked, or answers what is no reply."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that an endpoint serves."""

    name: str
    context: int | None  # tokens, where the endpoint says


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and what it takes to be answered there."""

    url: str  # up to and with /v1
    key: SecretStr | None = None
    timeout: float = PROBE_SECONDS

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """The JSON object that comes back, without the key where the endpoint repeats it.

        Args:
            method: of HTTP.
            path: after the address.
            body: sent as JSON.
            until: when all of it must be there, by `time.monotonic`; None gives it the endpoint's own timeout from now.

        Raises:
            EndpointError: nothing, a refusal, or something else comes back.
            BrainError: it takes too long.
        """
        request, connect, left = self._request(method, path, body, until)
        with self._faults(connect):
            answer = _run(asyncio.wait_for(_answer(request, connect), max(left, 0.0)))
        self._check(answer, path)
        cleaned: dict[str, Any] = without_keys(self._object(answer.content, path))
        return cleaned

    def events(self, path: str, body: Mapping[str, Any], until: float) -> Iterator[dict[str, Any]]:
        """The JSON objects of a streamed answer as they come; the one there is where the endpoint does not stream.

        The key is in them where the endpoint repeats it: it may be spread over several.

        Raises:
            EndpointError: nothing, a refusal, or something else comes back.
            BrainError: it takes too long; a silence is noticed after another `until` at the latest.
        """
        request, connect, left = self._request("POST", path, body, until)
        limit = httpx.Timeout(max(left, 0.001), connect=connect)
        with self._faults(connect), httpx.Client(timeout=limit, trust_env=request.url.host not in HERE) as client:
            request.extensions["timeout"] = limit.as_dict()
            answer = client.send(request, stream=True)
            try:
                streams = answer.headers.get("content-type", "").startswith("text/event-stream")
                if answer.status_code != 200 or not streams:
                    whole = b"".join(_measured(answer, until))
                    self._check(httpx.Response(answer.status_code, headers=answer.headers, content=whole), path)
                    yield self._object(whole, path)
                    return
                for line in _lines(_measured(answer, until)):
                    said = line.removeprefix(b"data:").strip()
                    if line.startswith(b"data:") and said != b"[DONE]":
                        event = self._object(said, path)
                        if event.get("error"):
                            raise EndpointError(f"{self.url}{path} breaks off: {_words(said)}")
                        yield event
            finally:
                answer.close()

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, until: float | None
    ) -> tuple[httpx.Request, float, float]:
        """What is sent, the seconds a connection may take, and those that are left for all of it."""
        left = self.timeout if until is None else until - time.monotonic()
        key = self.key.get_secret_value() if self.key else ""
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(f"the key in {KEY} has characters that no header can carry: check for stray ones")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers["accept-encoding"] = "identity"  # a small answer stays one
        request = httpx.Request(method, f"{self.url}{path}", json=body, headers=headers)
        return request, min(CONNECT_SECONDS, self.timeout), left

    @contextmanager
    def _faults(self, connect: float) -> Iterator[None]:
        """What goes wrong on the way, as a sentence."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise EndpointError(f"{self.url} cannot be reached: no connection within {connect:.0f} s") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise BrainError(f"{self.url} gave no answer within {self.timeout:.0f} s") from error
        except httpx.HTTPError as error:
            raise EndpointError(f"{self.url} cannot be reached: {redact(str(error))}") from error

    def _check(self, answer: httpx.Response, path: str) -> None:
        """Raises EndpointError for an answer that is a refusal."""
        if answer.is_redirect:
            place = redact(str(answer.headers.get("location")))
            raise EndpointError(f"{self.url} sends elsewhere, to {place}: name that address")
        if answer.status_code in (401, 403):
            given = "the key in" if self.key else "to answer without a key in"
            raise EndpointError(f"{self.url} refuses {given} {KEY} (HTTP {answer.status_code})")
        if answer.is_error:
            raise EndpointError(f"{self.url}{path} answers HTTP {answer.status_code}: {_words(answer.content)}")

    def _object(self, content: bytes, path: str) -> dict[str, Any]:
        """The JSON object in an answer, or EndpointError."""
        text = redact(content.decode("utf-8", "replace"))
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise EndpointError(f"{self.url}{path} answers what is no JSON: {text[:_SAID]!r}") from error
        if not isinstance(found, dict) or too_deep(found):
            what = "nests its answer too deep" if isinstance(found, dict) else "answers no JSON object"
            raise EndpointError(f"{self.url}{path} {what}: {text[:_SAID]!r}")
        return found


def _measured(answer: httpx.Response, until: float) -> Iterator[bytes]:
    """The parts of an answer, as long as they are few and in time."""
    _check_encoding(answer, answer.url)
    size = 0
    for part in answer.iter_raw():
        size += len(part)
        if size > LARGEST:
            raise EndpointError(f"{answer.url} answers more than {LARGEST >> 20} MB, which is no reply")
        if time.monotonic() > until:
            raise TimeoutError
        yield part


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
    yield rest


def _check_encoding(answer: httpx.Response, url: httpx.URL) -> None:
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise EndpointError(f"{url} answers in the encoding {encoding!r}, which it was not asked for")


def _run(answering: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
    """What comes of it, in a thread of its own where this one has a loop of events that runs, as a notebook's has."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(answering)
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, answering).result()


async def _answer(request: httpx.Request, connect: float) -> httpx.Response:
    """All of an answer; how long it may take in all is for the caller to say, since a server can drip."""
    limit = httpx.Timeout(None, connect=connect)
    async with httpx.AsyncClient(timeout=limit, trust_env=request.url.host not in HERE) as client:
        answer = await client.send(request, stream=True)
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > LARGEST:
                raise EndpointError(f"{request.url} answers more than {LARGEST >> 20} MB, which is no reply")
        _check_encoding(answer, request.url)
        return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(body), request=request)


def _words(content: bytes) -> str:
    """What a server says of its refusal."""
    try:
        body = json.loads(content)
        message = body.get("error", body)
        message = message.get("message", message) if isinstance(message, dict) else message
        said = str(message)
    except (ValueError, AttributeError, RecursionError):
        said = content.decode("utf-8", "replace")
    return redact(" ".join(said.split()))[:_SAID] or "nothing"


def checked_url(text: str) -> str:
    """The address as it is used.

    Raises:
        EndpointError: it is none, or it holds a password, a key or a query, where keys are written too.
    """
    try:
        parts = urlsplit(text)
        if "@" in parts.netloc:
            raise EndpointError(f"an address with a name or password ends up in files: put the key into {KEY} instead")
        host = httpx.URL(text).host and httpx.URL(text).raw_host.decode().encode("idna")  # as it will be looked up
        known = parts.scheme in ("http", "https") and host and (parts.port or True)
    except (ValueError, httpx.InvalidURL):
        known = False
    if not known:
        raise EndpointError(f"{redact(text)!r} is no address of an endpoint: write it like http://localhost:8000/v1")
    if "?" in text or "#" in text:
        raise EndpointError(f"an address with a query (?) ends up in files: put a key into {KEY} instead")
    if redact(text) != text:
        raise EndpointError(f"an address with a key in it ends up in files: put the key into {KEY} alone")
    return text.rstrip("/")


def served_model(endpoint: Endpoint, wanted: str | None) -> Served:
    """The model that the brain is: the one of that name, or the only one there is.

    Raises:
        EndpointError: there is none of that name, several and none is named, or the endpoint does not list any.
    """
    try:
        listed = endpoint.ask("GET", "/models").get("data")
    except EndpointError as error:
        hint = "" if endpoint.url.endswith("/v1") or "HTTP 404" not in str(error) else "; does its address end in /v1?"
        raise EndpointError(f"{error}{hint}") from error
    rows = [row for row in listed if isinstance(row, dict) and "id" in row] if isinstance(listed, list) else []
    found = {str(row["id"]): row for row in rows}
    if not found:
        raise EndpointError(f"{endpoint.url}/models lists no model")
    names = ", ".join(sorted(found)[:10])
    if wanted is None and len(found) > 1:
        raise EndpointError(f"{endpoint.url} serves several models: name one of {names} with --brain-model")
    name = wanted or next(iter(found))
    if name not in found:
        raise EndpointError(f"{endpoint.url} serves no {name!r}, only {names}")
    context = found[name].get("max_model_len")
    return Served(name, context if type(context) is int and context > 0 else None)


def obeys_schemas(endpoint: Endpoint, model: str) -> bool:
    """Whether a reply has the form it was asked for, tried on one that no model would give by itself.

    Raises:
        EndpointError: the endpoint refuses to be given a schema.
    """
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["vermilion"]}, "count": {"enum": [41]}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 64,
        "temperature": 0,
        "response_format": response_format(schema),
    }
    try:
        answer = endpoint.ask("POST", "/chat/completions", body)
    except EndpointError as error:
        raise EndpointError(f"{error}; the brain's replies need JSON schemas (response_format json_schema)") from error
    try:
        said = json.loads(text_of(choices_of(answer, endpoint.url)[0]), strict=False)
    except (ValueError, RecursionError):
        return False
    return bool(said == {"colour": "vermilion", "count": 41})


def choices_of(answer: Mapping[str, Any], url: str) -> list[dict[str, Any]]:
    """The choices of a chat completion, at least one."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise EndpointError(f"{url}/chat/completions answers what is no chat completion: {str(answer)[:_SAID]}")
    return choices
