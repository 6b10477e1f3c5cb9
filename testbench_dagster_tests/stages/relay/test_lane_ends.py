"""What a run says of suppliers that it left: the remedy of what happened, not of the kind of fault alone."""

from __future__ import annotations

from datetime import UTC, datetime

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.core.remedies import remedy_of
from testbench_dagster.relays.report import LaneEnd, LaneEnding
from testbench_dagster.stages.relay.lane_ends import why_left

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def left(fault: Fault, error: str, status: int | None = None, **evidence: str) -> str:
    attempt = Attempt(fault, NOW, NOW, 1.0, status=status, error=error, evidence=evidence)
    waited_s = 0.0 if fault is Fault.CLIENT_REQUEST else 60.0
    return why_left(LaneEnd(NOW, LaneEnding.LEFT, fault, waited_s, remedy_of(attempt))) or ""


def test_a_certificate_that_nobody_trusts_names_the_setting() -> None:
    told = left(Fault.TRANSPORT, "TLS failed: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    assert "tls.ca_file" in told and "is it running" not in told
    assert "is it running" in left(Fault.TRANSPORT, "ClientConnectorError while connecting: refused")


def test_a_redirect_names_where_it_leads() -> None:
    there = "https://right.example/v1/completions"
    told = left(Fault.SUPPLIER_HTTP, "HTTP 308", 308, location=there)
    assert "base_url is wrong" in told and "write base_url: https://right.example/v1" in told
    assert "base_url is wrong" in left(Fault.SUPPLIER_HTTP, "HTTP 307", 307)
    assert "base_url is wrong" in left(Fault.SUPPLIER_HTTP, "HTTP 301", 301, location="/elsewhere")


def test_who_refuses_every_request_is_to_be_checked() -> None:
    told = left(Fault.CLIENT_REQUEST, "HTTP 400: 'max_tokens' is not supported", 400)
    assert told.startswith("it refuses every request")
    assert "`testbench check` finds out which settings it wants" in told


def test_a_proxy_is_told_from_the_supplier() -> None:
    assert "proxy_env" in left(Fault.GATEWAY, "the proxy answers HTTP 407 (No) when asked to connect")
    assert "gateway or proxy" in left(Fault.GATEWAY, "the gateway failed: HTTP 502", 502)


def test_who_was_not_left_has_no_reason() -> None:
    assert why_left(LaneEnd(NOW, LaneEnding.DONE, Fault.TRANSPORT, 1.0)) is None
    end = LaneEnd(NOW, LaneEnding.LEFT, Fault.TRANSPORT, 1.0)
    assert why_left(end) == "no answer in 1 s of waiting (transport): is it running, and is base_url right?"
