"""A seal on what a user writes down here: it tells later whether that is still what this user wrote on this machine."""

from __future__ import annotations

import hashlib
import hmac
import os
import platform
import uuid
from pathlib import Path

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def seal(name: str, content: str) -> str:
    """A keyed digest of `content` under `name`, which no other user and no other machine would make.

    The key is the machine's id and the user's number. It cannot be told from the seal, and a seal that was seen once
    fits no other content, so a file with one can be published.
    """
    key = f"{_machine()}:{os.getuid()}".encode()
    return hmac.new(key, f"{name}\n{content}".encode(), hashlib.sha256).hexdigest()[:32]


def holds(found: object, name: str, content: str) -> bool:
    """Whether `found` is the seal of `content`, made by this user on this machine."""
    return isinstance(found, str) and hmac.compare_digest(found.encode(), seal(name, content).encode())


def _machine() -> str:
    for path in _MACHINE_IDS:
        try:
            if known := path.read_text(encoding="utf-8").strip():
                return known
        except (OSError, UnicodeDecodeError):
            continue
    return f"{platform.node()}:{uuid.getnode():x}"
