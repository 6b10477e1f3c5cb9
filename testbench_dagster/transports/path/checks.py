"""What `testbench check` says of the gateway of a service."""

from __future__ import annotations

from collections.abc import Iterator

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.path.gateways import check_gateway


def gateway_findings(config: Config, name: str) -> Iterator[Finding]:
    """Whether the gateway answers, and whether it is set up for evaluation."""
    service = config.settings.services[name]
    if service.gateway is None:
        raise ConfigError(f"services.{name}: transport path needs a gateway")
    what = f"service {name}, gateway {service.gateway.url}"
    report = check_gateway(name, service, base=config.base)
    for problem in report.problems:
        yield Finding(what, problem, ok=False)
    for warning in report.warnings:
        yield Finding(what, warning, ok=False, warning=True)
    if report.reachable:
        yield Finding(what, f"answers; it calls {counted(report.suppliers, 'supplier')} ready")
