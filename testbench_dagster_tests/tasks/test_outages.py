"""Which errors say that a service is gone, and which that an answer breaks a metric."""

from __future__ import annotations

import http.client
import io
import json
import socket
import urllib.error
from email.message import Message

import aiohttp
import httpx
import pytest
import requests

from testbench_dagster import ScorerUnavailable
from testbench_dagster.tasks.lm_eval_adapter.outages import is_outage


def of_urllib(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://x", status, "", Message(), io.BytesIO())


def of_requests(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


def of_httpx(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    "error",
    [
        ScorerUnavailable("busy"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        http.client.RemoteDisconnected(),
        TimeoutError(),
        socket.gaierror(),
        urllib.error.URLError(ConnectionRefusedError()),
        urllib.error.URLError(socket.gaierror()),
        *(make(status) for make in (of_urllib, of_requests, of_httpx) for status in (408, 429, 500, 503)),
        requests.ConnectionError(),
        requests.ReadTimeout(),
        httpx.ConnectError(""),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError(""),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientConnectorDNSError.__mro__[1](None, OSError()),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_service_that_is_gone(error: Exception) -> None:
    assert is_outage(error)
    wrapped = RuntimeError("the judge did not answer")
    wrapped.__cause__ = error
    assert is_outage(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no number"),
        KeyError("score"),
        json.JSONDecodeError("", "", 0),
        FileNotFoundError(),
        ZeroDivisionError(),
        urllib.error.URLError("unknown url type"),
        http.client.InvalidURL(),
        requests.exceptions.InvalidURL(),
        requests.exceptions.MissingSchema(),
        httpx.UnsupportedProtocol(""),
        httpx.InvalidURL(""),
        httpx.LocalProtocolError(""),
        *(make(status) for make in (of_urllib, of_requests, of_httpx) for status in (400, 401, 404, 413)),
    ],
    ids=repr,
)
def test_an_answer_that_breaks_the_metric(error: Exception) -> None:
    assert not is_outage(error)


def test_what_was_raised_in_place_of_it_is_not_believed() -> None:
    instead = ValueError("no number")
    instead.__context__ = ConnectionError()
    assert is_outage(instead)
    instead.__suppress_context__ = True  # raise ... from None
    assert not is_outage(instead)


def test_causes_that_go_in_a_circle_end() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert not is_outage(one)
