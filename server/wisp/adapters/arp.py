"""ARP said and asked by hand, about addresses that no link of the node has: it only answers for them.

The kernel announces and probes its own addresses alone. A probe as RFC 5227 has it, with no sender's address, a node
that answers for another does not answer either; so the question names the asking link's own address, which is true
and moves nobody's entry.
"""
from __future__ import annotations

import socket
import struct
import time

from wisp.adapters.links import Link

ETH_P_ARP, REQUEST, REPLY = 0x0806, 1, 2
BROADCAST, NOBODY = b"\xff" * 6, b"\0" * 6
FRAME = struct.Struct("!HHBBH6s4s6s4s")
TRIES, PAUSE = 3, 0.3


def announce(link: Link, address: str) -> None:
    """Tells the link's neighbours that its MAC has the address now. Some believe a request and some an answer."""
    with _opened(link) as wire:
        for operation in (REQUEST, REPLY):
            _say(wire, link, operation, address, address)


def is_held(link: Link, speaker: str, address: str) -> bool:
    """Whether another MAC on the link has the address; the node's own frames do not come back to it. `speaker`: an
    address of the link's own."""
    with _opened(link) as wire:
        for _ in range(TRIES):
            _say(wire, link, REQUEST, speaker, address)
            until = time.monotonic() + PAUSE
            while (left := until - time.monotonic()) > 0:
                wire.settimeout(left)
                try:
                    heard = FRAME.unpack_from(wire.recv(1024).ljust(FRAME.size, b"\0"))
                except TimeoutError:
                    break
                if heard[6] == socket.inet_aton(address):
                    return True
    return False


def _opened(link: Link) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ARP))
    wire.bind((link.name, ETH_P_ARP))
    return wire


def _say(wire: socket.socket, link: Link, operation: int, sender: str, target: str) -> None:
    whom = BROADCAST if operation == REPLY else NOBODY
    wire.sendto(FRAME.pack(1, 0x0800, 6, 4, operation, _bytes(link), socket.inet_aton(sender), whom,
                           socket.inet_aton(target)), (link.name, ETH_P_ARP, 0, 0, BROADCAST))


def _bytes(link: Link) -> bytes:
    return bytes.fromhex(link.mac.replace(":", ""))
