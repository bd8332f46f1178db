"""Access tokens have no place in a file that people pass around: what looks like one is blotted out before writing."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"""(?x)
    (?<![A-Za-z0-9])
    (?: hf_[A-Za-z0-9]{16,}                             # Hugging Face
      | (?:sk|pk|rk)-[A-Za-z0-9_-]{16,}                 # OpenAI, Anthropic and others
      | lsv2_[A-Za-z0-9_]{16,}                          # LangSmith
      | (?:ghp|gho|ghu|ghs|ghr|github_pat)_[A-Za-z0-9_]{16,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}                       # AWS
    )
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)                   # name:password in an address
    """
)


def redact(text: str) -> str:
    """`text` with every access token in it replaced by `[redacted]`."""
    return _SECRET.sub("[redacted]", text)
