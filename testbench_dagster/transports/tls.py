"""TLS contexts: the certificates of the system, or those of one file."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache


class CaFileError(Exception):
    """A file of certificates cannot be used; the text names it and says why."""


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """The context that checks servers by the certificates in ``ca_file`` (PEM) alone, or by the system's.

    One per file as it is now: reading them takes time, and connections are kept by context.

    Raises:
        CaFileError: the file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return _loaded(None, 0)
    try:
        changed = os.stat(ca_file).st_mtime_ns
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise CaFileError(f"cannot read {ca_file}: {reason}; correct the path") from None
    return _loaded(ca_file, changed)


@lru_cache(maxsize=64)
def _loaded(ca_file: str | None, changed: int) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise CaFileError(f"{ca_file} holds no certificate in PEM; name a file that does") from None
    except OSError as error:
        raise CaFileError(f"cannot read {ca_file}: {error.strerror}; correct the path") from None
    context.set_alpn_protocols(["http/1.1"])
    return context
