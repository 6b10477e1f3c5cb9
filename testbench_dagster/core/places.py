"""Where files may be kept: a folder of this machine, or a URL that fsspec knows."""

from __future__ import annotations

import re

#: Protocols of what is a folder of this machine.
LOCAL = frozenset({"file", "local"})
_LIKE = "write it like s3://bucket/prefix or file:///srv/results"
_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.+)", re.DOTALL)
_ELSEWHERE = (
    "give keys in the environment, as the package for this protocol reads them (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY), or by the role of the machine"
)


def is_url(place: str) -> bool:
    """Whether a place is meant as a URL, and not as a path."""
    return "://" in place


def protocol_of(url: str) -> str:
    """The protocol of a URL of a place without a problem, in lower case."""
    return url.partition("://")[0].lower()


def place_problem(url: str) -> str | None:
    """What is wrong with a URL of a place, with the remedy; None where nothing is.

    The words never quote what may hold a password or a key.
    """
    if "::" in url:
        return f"a chain of places (::) cannot be written to; name the last one alone: {_LIKE}"
    found = _URL.fullmatch(url)
    if found is None:
        quoted = "this" if "@" in url or "?" in url else repr(url)
        return f"{quoted} is no URL of a place for files; {_LIKE}"
    protocol, rest = found["protocol"].lower(), found["rest"]
    if protocol in LOCAL:
        if rest.startswith("/"):
            return None
        return f"{url!r} names a host; write a folder of this one, as file:///srv/results"
    if ":" in rest.rpartition("@")[0]:
        return f"a URL may not hold a password or key; take it out, and {_ELSEWHERE}"
    if "?" in rest or "#" in rest:
        return f"nothing may follow ? or # in such a URL, for it may be a key; {_LIKE}, and {_ELSEWHERE}"
    return None
