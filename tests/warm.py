"""Processes that start warm: forks of one that has everything imported, in place of new interpreters.

A new interpreter imports torch, transformers and lm-eval for eight seconds before it does what a test is about. A fork
of this server is a process like any other, a child of the test's own: it is waited for, killed and leashed as ever.
Tests of what a fresh interpreter does start one.
"""

from __future__ import annotations

import ctypes
import fcntl
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.campaign.forks import SUBREAPER, load_everything
from tests.campaign.stand_ins import PIPES, STREAMS, forked, script_of, stand_in

ROOT = Path(__file__).parents[1]
LENGTH = 1 << 17  # bytes that a request takes at the most, its environment included
BEYOND = 500  # descriptors above this are nobody's
_real_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_names = list(inspect.signature(_real_execute).parameters)


class WarmServer:
    """The process that is forked; `close` ends it, and so does the end of this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (self._socket, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LENGTH)
        command = [sys.executable, "-W", "ignore", "-m", "tests.warm", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    @contextmanager
    def starts(self) -> Iterator[None]:
        """While this lasts, scripts that `subprocess` starts with this interpreter are forks of the server."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess.Popen, "_execute_child", lambda child, *given: self._execute(child, *given))
            yield

    def _execute(self, child: subprocess.Popen, *arguments: object) -> None:  # type: ignore[type-arg]
        given = dict(zip(_names[1:], arguments, strict=True))
        words = [os.fspath(word) for word in given["args"]] if not isinstance(given["args"], str) else []
        if script_of(words) is None or given["preexec_fn"] is not None:
            _real_execute(child, *arguments)
            return
        child.pid = _asked(self._socket, words, given)
        child._child_created = True
        child._close_pipe_fds(*(given[end] for end in PIPES))  # type: ignore[attr-defined]


def _asked(server: socket.socket, words: list[str], given: dict) -> int:  # type: ignore[type-arg]
    """The number of a fork that runs `words`, made a child of this process."""
    kept = list(given["pass_fds"])
    streams = [given[name] if given[name] != -1 else number for number, name in enumerate(STREAMS)]
    request = {
        "words": words,
        "cwd": os.path.abspath(given["cwd"] or "."),
        "env": dict(os.environ if given["env"] is None else given["env"]),
        "session": given["start_new_session"],
        "kept": kept,
    }
    _adopt(True)  # whoever loses its parent now, as the fork does, becomes our child
    try:
        socket.send_fds(server, [json.dumps(request).encode()], [*streams, *kept])
        answer = server.recv(64)
    finally:
        _adopt(False)
    assert answer, "the server of warm processes has ended"
    return int(answer)


def _adopt(orphans: bool) -> None:
    ctypes.CDLL(None).prctl(SUBREAPER, int(orphans), 0, 0, 0)


def serve(connection: socket.socket) -> None:
    """Fork for every request, until nobody asks any more."""
    load_everything()
    while True:
        content, received, _, _ = socket.recv_fds(connection, LENGTH, 64)
        if not content:
            return
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                _start(json.loads(content), received)
            os.write(writing, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        connection.send(os.read(reading, 64))
        for descriptor in (reading, writing, *received):
            os.close(descriptor)


def _start(request: dict, received: list[int]) -> None:  # type: ignore[type-arg]
    """In the fork: bring the descriptors to the numbers that they have where they come from, and run the script."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, BEYOND) for descriptor in received]
    for descriptor, number in zip(high[3:], request["kept"], strict=True):
        os.dup2(descriptor, number)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    subprocess.Popen._execute_child = forked  # type: ignore[attr-defined]
    stand_in(
        request["words"],
        high[:3],
        request["kept"],
        cwd=request["cwd"],
        env=request["env"],
        session=request["session"],
    )


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
