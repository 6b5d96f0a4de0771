"""The kinds there are: one line each. No kind is named elsewhere in the server."""
from __future__ import annotations

from collections.abc import Mapping

from wisp.kinds.action import Action
from wisp.kinds.floating_ip import FloatingIp
from wisp.kinds.image import Image
from wisp.kinds.instance import Instance
from wisp.kinds.key import Key
from wisp.kinds.kind import Act, Asked, Bound, Kind
from wisp.kinds.namespace import Namespace
from wisp.kinds.network import Network
from wisp.kinds.node import Node
from wisp.kinds.pool import Pool

KINDS: Mapping[str, Kind] = {
    "action": Action(),
    "floating-ip": FloatingIp(),
    "image": Image(),
    "instance": Instance(),
    "key": Key(),
    "namespace": Namespace(),
    "network": Network(),
    "node": Node(),
    "pool": Pool(),
}

__all__ = ["KINDS", "Act", "Asked", "Bound", "Kind"]
