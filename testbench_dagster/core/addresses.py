"""Names in the addresses of pages."""

from __future__ import annotations

from urllib.parse import quote


def path_segment(name: str) -> str:
    """A name as one segment of a path, ``@`` and ``:`` as they are; lone surrogates are replaced."""
    quoted = quote(name.encode("utf-8", "replace"), safe="@:")
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted  # browsers resolve . and ..
