"""A certificate authority of a test's own, and a server's certificate that it signed; made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_EXTENSIONS = """
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
extendedKeyUsage = serverAuth
"""


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority's certificate, the server's, and the server's key."""

    ca: Path
    server: Path
    key: Path


def made_in(folder: Path) -> Certificates:
    """Make them; the test is skipped where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make certificates with")
    (folder / "extensions.cnf").write_text(_EXTENSIONS)
    for name in ("ca", "server"):
        _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        subject = ["-subj", f"/CN=test {name}", "-out", f"{name}.csr"]
        _openssl(folder, "req", "-new", "-key", f"{name}.key", *subject)
    sign = ["-days", "2", "-extfile", "extensions.cnf"]
    _openssl(
        folder,
        "x509",
        "-req",
        "-in",
        "ca.csr",
        "-signkey",
        "ca.key",
        *sign,
        "-extensions",
        "ca",
        "-out",
        "ca.pem",
    )
    by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7"]
    _openssl(
        folder, "x509", "-req", "-in", "server.csr", *by, *sign, "-extensions", "server", "-out", "server.pem"
    )
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
