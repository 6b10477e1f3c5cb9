"""Gets pages from wherever this is executed: a host has a loopback of its own.

``python get.py SECONDS URL…`` waits so long for servers that do not listen yet, and prints a JSON object with
the body of each page.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request


def page(url: str, deadline: float) -> str:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    until = time.monotonic() + float(sys.argv[1])
    print(json.dumps({url: page(url, until) for url in sys.argv[2:]}))
