"""What the config drive of an instance says, laid out as OpenStack does and cloud-init reads it.

Addresses are told as fixed ones: they are claims, and so hold with or without DHCP. Only the first
interface on a network with NAT gets a default route; two would be a coin toss. User data is known here
by its digest alone: the text is fetched from the store when the drive is written.
"""
from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from wisp.host import Seed
from wisp.resource import Json, Resource

LATEST = "openstack/latest"
NICs = Sequence[tuple[Json, Resource]]


def config_drive(instance: Resource, nics: NICs, mtu: int) -> Seed:
    """`nics`: each element of `networks` with the network it names; `mtu`: of the node's segments, bytes."""
    files = ((f"{LATEST}/meta_data.json", _text(_meta_data(instance))),
             (f"{LATEST}/network_data.json", _text(_network_data(instance, nics, mtu))),
             (f"{LATEST}/vendor_data.json", "{}"))
    sealed = instance.intent.sealed.get("user_data", "")
    digest = hashlib.sha256(_text([files, sealed]).encode()).hexdigest()
    return Seed(instance.uid, digest, files, instance.ref.key("user_data") if sealed else "")


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)


def _meta_data(instance: Resource) -> Json:
    keys = {f"key-{index}": key for index, key in enumerate(instance.spec["ssh_keys"])}
    return {"uuid": instance.uid, "name": instance.ref.name, "hostname": instance.ref.name,
            "availability_zone": "wisp", "launch_index": 0, "public_keys": keys}


def _network_data(instance: Resource, nics: NICs, mtu: int) -> Json:
    links, networks, services = [], [], []
    routed = False
    for index, ((_, network), given) in enumerate(zip(nics, instance.binding["interfaces"], strict=True)):
        spec = network.spec
        links.append({"id": f"link-{index}", "type": "phy", "ethernet_mac_address": given["mac"], "mtu": mtu})
        route = {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": network.binding["gateway"]["address"]}
        networks.append({"id": f"network-{index}", "link": f"link-{index}", "type": "ipv4",
                         "ip_address": given["address"],
                         "netmask": str(ipaddress.IPv4Network(spec["cidr"]).netmask),
                         "routes": [route] if spec["nat"] and not routed else []})
        routed = routed or spec["nat"]
        servers = [route["gateway"]] if spec["dhcp"] else spec["dns_servers"]
        services += [{"type": "dns", "address": address} for address in servers]
    return {"links": links, "networks": networks, "services": services}
