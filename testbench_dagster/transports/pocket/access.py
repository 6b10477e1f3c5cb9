"""What everything about a service of Pocket Network begins with: its chain client, its keys, its sessions.

All but the configuration blocks; in an event loop it belongs into a thread.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbench_dagster.config import AppConfig, Config, ServiceConfig
from testbench_dagster.core.errors import ConfigError, KeyMaterialError
from testbench_dagster.transports.discovery import ChainReading
from testbench_dagster.transports.endpoints import connection_route

if TYPE_CHECKING:
    from testbench_dagster.transports.pocket.chain.client import ChainClient
    from testbench_dagster.transports.pocket.keys import PrivateKey


_clients: dict[tuple[Any, ...], ChainClient] = {}


_clients_lock = threading.Lock()


def service_config(config: Config, service: str) -> ServiceConfig:
    """The configured service with this id.

    Raises:
        ConfigError: it is not configured.
    """
    found = config.settings.services.get(service)
    if found is None:
        known = ", ".join(config.settings.services) or "none"
        raise ConfigError(
            f"{config.path}: service {service!r} is not configured under services; it has {known}"
        )
    return found


def chain_client(config: Config, service: str) -> ChainClient:
    """The client for the nodes of a service: one per service and process, so that all share what it cached.

    Raises:
        ConfigError: the service is not configured, or without nodes; or its proxy or certificates are wrong.
    """
    from testbench_dagster.transports.pocket.chain.client import ChainClient  # a code location asks no chain

    settings = service_config(config, service)
    nodes = settings.nodes
    if nodes is None:
        raise ConfigError(f"{config.path}: services.{service} has no nodes; add nodes to read the chain")
    # a forked process must not use the sockets of its parent
    route = connection_route(config.base, settings.connection, f"{config.path}: services.{service}")
    key = (os.getpid(), service, *nodes.rest, None, *nodes.rpc, nodes.timeout_s, nodes.poll_s, route)
    with _clients_lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = ChainClient(
                rest=nodes.rest,
                rpc=nodes.rpc,
                timeout_s=nodes.timeout_s,
                height_ttl_s=nodes.poll_s,
                route=route,
            )
        return client


def read_chain(config: Config, service: str, *, fresh: bool = False) -> ChainReading:
    """Read the height of a service's chain, and the current sessions of its applications.

    An application without a session (not staked, no suppliers) is left out; ``testbench check`` says why. So
    is one whose session cannot be read, as long as another's can.

    Args:
        config: the configuration.
        service: id of a configured service with nodes.
        fresh: whether to ask the node although what it told before should still hold.

    Raises:
        ConfigError: the service is not configured, or without nodes.
        ChainError: no node could be read.
    """
    # a code location asks no chain
    from testbench_dagster.transports.pocket.chain.errors import ChainError, NotFound, SessionUnavailable

    client = chain_client(config, service)
    client.height(fresh=fresh)
    sessions, failed = [], None
    for app in service_config(config, service).session_apps:
        try:
            sessions.append(client.session(app, service, fresh=fresh))
        except (SessionUnavailable, NotFound):
            continue
        except ChainError as error:
            failed = error
    if failed is not None and not sessions:
        raise failed
    blocks = client.shared_params().num_blocks_per_session
    return ChainReading(service, client.height(), tuple(sessions), blocks)


def service_keys(config: Config, service: str) -> dict[str, tuple[PrivateKey, str | None]]:
    """Load the keys that sign for a service, from the environment or from files.

    Returns:
        By address of the application: the key, and the gateway it belongs to if it is not the application's.

    Raises:
        ConfigError: a key is not set, unreadable or malformed, or belongs to another address; the text names
            where it was looked for and the addresses, never the key.
    """
    apps = service_config(config, service).apps
    return {app.address: (app_key(config, service, app), app.gateway) for app in apps}


def app_key(config: Config, service: str, app: AppConfig) -> PrivateKey:
    """Load the key that signs for one application; see :func:`service_keys`."""
    from testbench_dagster.transports.pocket.keys import PrivateKey  # with coincurve

    where = f"{config.path}: services.{service}.apps: {app.address}"
    try:
        if app.key_env is not None:
            held = f"key_env {app.key_env}"
            key = PrivateKey.from_env(app.key_env)
        elif app.key_file is None:
            raise ConfigError(f"{where} names no key: give key_env or key_file")
        else:
            held = f"key_file {app.key_file}"
            key = PrivateKey.from_file(config.base / Path(app.key_file).expanduser())
    except KeyMaterialError as error:
        raise ConfigError(f"{where}: {error}") from None
    if key.address != app.signer:
        owner = "gateway" if app.gateway else "application"
        raise ConfigError(
            f"{where}: {held} holds the key of {key.address}, not of the {owner} {app.signer}; "
            "name the right key or correct the address"
        )
    return key
