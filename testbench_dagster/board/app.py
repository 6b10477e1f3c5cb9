"""The board as an ASGI application: which path is which page, and what every response carries.

It answers GET and HEAD and writes nothing. Pages are made in a pool of four threads, for the stores keep a
connection for every thread that used them. It carries no authentication and no TLS: it listens on the
loopback interface unless told otherwise, and a proxy in front is the place for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from testbench_dagster.board import links
from testbench_dagster.board.pages.answers import answer, answers
from testbench_dagster.board.pages.catalog import catalog, task
from testbench_dagster.board.pages.changes import changes
from testbench_dagster.board.pages.compare import compare
from testbench_dagster.board.pages.docs import doc, doc_json, raw_body
from testbench_dagster.board.pages.groups import group
from testbench_dagster.board.pages.leaderboard import leaderboard
from testbench_dagster.board.pages.service import service
from testbench_dagster.board.pages.supplier import history, supplier
from testbench_dagster.board.pages.twins import twins
from testbench_dagster.board.site import AnswersHidden, Asked, Data, NotFound, NotUnderstood, Page, Site
from testbench_dagster.board.templating import load_templates, render, stylesheet
from testbench_dagster.core.errors import TestbenchError

_LOG = logging.getLogger(__name__)
#: The stores keep a connection for every thread that ever used them.
THREADS = 4
#: Nothing but the board's own stylesheet is loaded, no script runs, and forms lead to the board alone.
POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HTML = "text/html; charset=utf-8"
#: Bytes of path and parameters: more than any link of the board has.
LONGEST = 16_000

View = Callable[..., Page | Data]


def _style(site: Site, asked: Asked) -> Data:
    return Data(stylesheet(), "text/css; charset=utf-8", {"Cache-Control": "public, max-age=31536000"})


#: By the raw path, in which names are percent-encoded: which page is shown, and what it is told.
PATHS: Sequence[tuple[re.Pattern[str], View]] = [
    (re.compile(pattern), view)
    for pattern, view in (
        (r"/", leaderboard),
        (r"/board\.css", _style),
        (r"/supplier/(.+)/task/(.+)/doc/([0-9]{1,15})", answer),
        (r"/supplier/(.+)/task/(.+)", answers),
        (r"/supplier/(.+)/history", history),
        (r"/supplier/(.+)/service", service),
        (r"/supplier/(.+)", supplier),
        (r"/task/(.+)", task),
        (r"/group/(.+)", group),
        (r"/doc/(.+)/([0-9]{1,15})\.json", doc_json),
        (r"/doc/(.+)/([0-9]{1,15})", doc),
        (r"/attempt/([^/]+)/body", raw_body),
        (r"/compare", compare),
        (r"/changes", changes),
        (r"/twins", twins),
        (r"/catalog", catalog),
        (r"/catalogue", catalog),
    )
]


def make_app(
    site: Site, *, hosts: frozenset[str] | None = None, clock: Callable[[], datetime] | None = None
) -> Router:
    """The application.

    Args:
        site: what is shown.
        hosts: names that requests may ask for, in lower case; None for all. See
            :func:`~testbench_dagster.board.run.allowed_hosts`.
        clock: what tells the time; by default the clock of this machine.
    """
    pool = ThreadPoolExecutor(THREADS, "board")
    now = clock or (lambda: datetime.now(UTC))

    @contextlib.asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        pool.submit(_warm, site)
        yield
        pool.shutdown(cancel_futures=True)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        path = scope.get("raw_path") or quote(scope["path"]).encode()
        asked = Asked(path.decode("ascii", "replace"), request.query_params, now())
        if request.method not in ("GET", "HEAD"):
            response = _html(site, asked, _failure(405))
        elif len(path) + len(scope["query_string"]) > LONGEST:
            response = _html(site, asked, _failure(414))
        elif hosts is not None and _host(request) not in hosts:
            response = _html(site, asked, _failure(421))
        else:
            response = await asyncio.get_running_loop().run_in_executor(pool, _respond, site, asked)
        if request.method == "HEAD":
            response.body = b""  # its length stays in the headers
        await response(scope, receive, send)

    # not by routes: they look at decoded paths, in which a name may look like several segments
    return Router(default=page, lifespan=lifespan, redirect_slashes=False)


def _warm(site: Site) -> None:
    """Do ahead of the first pages what each of them would have to wait for: half a second in all."""
    load_templates()
    # for comparisons: 0.1 s
    import numpy  # noqa: F401

    with contextlib.suppress(TestbenchError):  # the page that needs it tells
        site.roster.read()
        site.ranking()


def _host(request: Request) -> str:
    """The name that is asked for, in lower case; empty where it is none."""
    try:
        return (request.url.hostname or "").lower()
    except ValueError:  # such as an IPv6 address that does not end
        return ""


def _respond(site: Site, asked: Asked) -> Response:
    """The response to a request; what goes wrong is a page too."""
    try:
        found = _view(site, asked)
        if isinstance(found, Data):
            return Response(found.content, 200, {**HEADERS, **found.headers}, found.media_type)
        return _html(site, asked, found)
    except NotFound as error:
        sentence = f"{str(error)[:1].upper()}{str(error)[1:]}."
        return _html(site, asked, Page("problem.html.jinja", _problem("Not found", sentence), 404))
    except NotUnderstood as error:
        sentence = f"The address is not understood: {error}."
        return _html(site, asked, Page("problem.html.jinja", _problem("Not understood", sentence), 400))
    except AnswersHidden:
        return _html(site, asked, _failure(403))
    except TestbenchError as error:
        _LOG.warning("a page cannot be made: %s", error)
        told = _problem("The page cannot be made", str(error).partition("\n")[0][:400])
        return _html(site, asked, Page("problem.html.jinja", told, 503))
    except Exception:
        _LOG.exception("a page cannot be made")
        return _html(site, asked, _failure(500))


def _view(site: Site, asked: Asked) -> Page | Data:
    for pattern, view in PATHS:
        if matched := pattern.fullmatch(asked.path):
            return view(site, asked, *links.names(matched.groups()))
    raise NotFound("There is no such page")


def _html(site: Site, asked: Asked, page: Page) -> Response:
    shared = {"now": asked.now, "site": site, "simulation": site.simulation, "path": asked.path}
    text = render(page.template, {**shared, **page.view})
    headers = {**HEADERS, "Allow": "GET, HEAD"} if page.status == 405 else HEADERS
    return Response(text.encode("utf-8", "replace"), page.status, headers, HTML)


_FAILURES: Mapping[int, tuple[str, str]] = {
    403: (
        "Answers are not shown here",
        "This board was started with --no-answers: it shows scores, and no prompts or answers.",
    ),
    405: ("Only reading is possible", "The board answers GET and HEAD; nothing can be changed through it."),
    414: ("Not understood", "The address is longer than any of this board."),
    421: (
        "Not under this name",
        "The board is asked for under another name than it knows; a proxy's is given with --name.",
    ),
    500: ("The page cannot be made", "That is a mistake of the board; its log says more."),
}


def _failure(status: int) -> Page:
    title, text = _FAILURES.get(status, ("That did not work", "The request cannot be answered."))
    return Page("problem.html.jinja", _problem(title, text), status)


def _problem(title: str, text: str) -> dict[str, Any]:
    return {"title": title, "text": text}
