"""`/openapi.json` as this version of the server keeps it: what it describes as open is closed.

Clients are told to expect members that they do not know; of our own answers none may have a member that no
schema file mentions. So our tests hold answers against this.
"""
from __future__ import annotations

import copy
from typing import Any


def closed(described: dict[str, Any]) -> dict[str, Any]:
    """A copy in which an object has the members that are listed and no others."""
    whole = copy.deepcopy(described)
    _close(whole)
    del whole["components"]["schemas"]["Problem"]["additionalProperties"]       # closed where it is used, with `allOf`
    return whole


def _close(node: Any) -> None:
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _close(child)
    if isinstance(node, dict) and node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
    if isinstance(node, dict) and "allOf" in node:
        node["unevaluatedProperties"] = False
