"""What a filter extracted from an answer, in a text short enough to be kept with every score."""

from __future__ import annotations

import hashlib
import re

#: Characters of an extracted answer that are kept as they are.
MAX_EXTRACTED_CHARS = 1_000
_MARK = "…sha256:"
_MARKED = re.compile(rf"{_MARK}[0-9a-f]{{64}}\Z")


def bounded_extract(text: str) -> str:
    """A text that equals another's exactly where the texts do, as far as SHA-256 tells texts apart.

    A text of at most :data:`MAX_EXTRACTED_CHARS` characters stays as it is. Of a longer one its beginning is
    left, then ``…sha256:`` and the digest of the whole. So it is with a short one that no store could hold
    (with lone surrogates, which UTF-8 has no bytes for; they are escaped), or that ends like a shortened one.
    """
    head = text[:MAX_EXTRACTED_CHARS]
    shown = head.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_EXTRACTED_CHARS and shown == text and _MARKED.search(text) is None:
        return text
    return f"{shown}{_MARK}{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
