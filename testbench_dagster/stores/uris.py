"""Connection URIs as they may be shown: never with a password."""

from __future__ import annotations

import re

_AUTHORITY = re.compile(r"^(?P<scheme>(?:[A-Za-z][A-Za-z0-9+.-]*://)?)(?P<login>.*)@(?P<rest>.*)$", re.DOTALL)


def without_password(uri: str) -> str:
    """Return the URI with ``***`` for its password and without its options, which may hold secrets too.

    Everything up to the last ``@`` counts as login, so that a password somebody forgot to percent-encode is
    not shown either.
    """
    if uri.startswith("sqlite://"):  # a path, where "@" and "?" mean nothing
        return uri
    match = _AUTHORITY.match(uri)
    if match:
        user, colon, _ = match["login"].partition(":")
        uri = f"{match['scheme']}{user}{':***' if colon else ''}@{match['rest']}"
    return uri.partition("?")[0]
