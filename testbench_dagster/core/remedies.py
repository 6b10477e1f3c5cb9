"""What to do about an attempt that brought no answer: as its fault says, or as the attempt itself tells."""

from __future__ import annotations

from testbench_dagster.core.relay import Attempt

#: How the error of an exchange begins that broke in the TLS handshake.
TLS_FAILED = "TLS failed"
#: How the error of an exchange begins that came no further than the proxy on the way.
PROXY_FAILED = "the proxy"
#: What a proxy on the way answers that wants other credentials than it was shown, or any.
PROXY_WANTS_CREDENTIALS = 407
#: What to do about that.
PROXY_CREDENTIALS = (
    "a proxy on the way refuses our credentials: correct its URL, with user name and password, in the "
    "variable that proxy_env names"
)
#: Where an answer that redirects leads, in the evidence of its attempt.
LOCATION = "location"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_API_PATHS = ("/chat/completions", "/completions")


def remedy_of(attempt: Attempt) -> str:
    """What to do about an attempt without an answer, for its operator or ours; may quote it, escaped."""
    error = attempt.error or ""
    if TLS_FAILED in error:
        return _tls(error)
    if attempt.status == PROXY_WANTS_CREDENTIALS:
        return PROXY_CREDENTIALS
    if error.startswith(PROXY_FAILED):
        return "is the proxy running (proxy, proxy_env), and may it connect there?"
    if attempt.status in _REDIRECTS:
        return _redirect(attempt)
    if "api-version" in error and attempt.status in (400, 404):
        return "it wants to be told the version of its API: add query: {api-version: '...'} to the supplier"
    if attempt.status == 401:
        own = "where it wants the key in a header of its own, name that in key_header"
        return f"{attempt.fault.row.remedy}; {own}"
    return attempt.fault.row.remedy


def _tls(error: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" not in error:
        return "is https right in base_url? (an authority of its own would be named in tls.ca_file)"
    if "mismatch" in error:
        return "its certificate is for another host: correct base_url (tls.ca_file cannot change that)"
    if "expired" in error:
        return "its certificate has expired: ask its operator (tls.ca_file cannot change that)"
    return "nobody who is trusted signed its certificate: name the file with who did in tls.ca_file"


def _redirect(attempt: Attempt) -> str:
    where = attempt.evidence.get(LOCATION)
    if not isinstance(where, str) or not where:
        return "base_url is wrong: it redirects, and redirects are not followed; write the final address"
    for path in _API_PATHS:
        if where.endswith(path) and where.removesuffix(path).startswith(("http://", "https://")):
            return f"base_url is wrong: it redirects to {where}; write base_url: {where.removesuffix(path)}"
    return (
        f"base_url is wrong: it redirects to {where}, and redirects are not followed; write the final address"
    )
