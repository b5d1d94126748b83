"""Targets and routes for tests."""

from typing import Any

import msgspec

from butterbase.ai.routing.config import Route
from butterbase.ai.routing.resolution import Provider, RoutingTable, Target
from butterbase.ai.wire.protocols import Kind


def provider(name: str, kind: Kind = Kind.COMPATIBLE) -> Provider:
    return Provider(name, kind, f"https://{name}.test/v1")


def target(name: str, *, weight: int = 1) -> Target:
    return Target(provider(name), f"{name}-model", weight)


def route(match: str, *targets: dict[str, Any], **fields: Any) -> Route:
    return msgspec.convert({"match": match, "targets": list(targets), **fields}, Route)


def table(*routes: Route, default: Provider | None = None) -> RoutingTable:
    providers = {name: provider(name) for name in ("one", "two", "three")}
    return RoutingTable(routes, providers, default)
