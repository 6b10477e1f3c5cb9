"""The configuration: what may be written (:mod:`.settings`) and how it is read (:mod:`.loading`).

Belongs here: the settings, their bounds and error messages, and how files and variables are read. Does not:
reading a store or a network, and what a setting leads to.
"""

from testbench_dagster.config.fields import RelayOverrides, RelaySettings, unmatched_pattern
from testbench_dagster.config.loading import (
    BUILTIN_CONFIG,
    CONFIG_ENV,
    DEFAULT_CONFIG_NAME,
    HOME_ENV,
    MONGO_ENV,
    POSTGRES_ENV,
    Config,
    find_config,
    installation_home,
    load_config,
    load_config_text,
)
from testbench_dagster.config.schedules import ScheduledBackfill
from testbench_dagster.config.services import (
    SERVICE_SOURCE,
    SIGNED_RELAYS,
    THROUGH_GATEWAY,
    AppConfig,
    GatewayConfig,
    NodeSettings,
    ServiceConfig,
    ServiceRules,
    admit_transport,
)
from testbench_dagster.config.settings import Settings, SupplierConfig, SupplierSource, TaskConfig

__all__ = [
    "BUILTIN_CONFIG",
    "CONFIG_ENV",
    "DEFAULT_CONFIG_NAME",
    "HOME_ENV",
    "MONGO_ENV",
    "POSTGRES_ENV",
    "SERVICE_SOURCE",
    "SIGNED_RELAYS",
    "THROUGH_GATEWAY",
    "AppConfig",
    "Config",
    "GatewayConfig",
    "NodeSettings",
    "RelayOverrides",
    "RelaySettings",
    "ScheduledBackfill",
    "ServiceConfig",
    "ServiceRules",
    "Settings",
    "SupplierConfig",
    "SupplierSource",
    "TaskConfig",
    "admit_transport",
    "find_config",
    "installation_home",
    "load_config",
    "load_config_text",
    "unmatched_pattern",
]
