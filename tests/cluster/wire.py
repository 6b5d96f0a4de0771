"""Who speaks on which device of a node: what its links carry, until a frame of 42 + 777 bytes says that it is enough.

Run by `heard` in the node's network; the guest's ping with so many bytes is the end mark.
"""
from __future__ import annotations

import socket
import sys

LAST = 777
ALL = 0x0003


def main() -> None:
    found: set[tuple[str, str, str]] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) as wire:
        print("listening", flush=True)
        while True:
            frame, (device, *_) = wire.recvfrom(65536)
            kind, source = frame[12:14].hex(), frame[6:12].hex(":")
            address = frame[26:30] if kind == "0800" else frame[28:32] if kind == "0806" else b""
            found.add((device, source, ".".join(map(str, address))))
            if len(frame) == LAST + 42 and device.startswith("vx-"):
                break
    for line in sorted(found):
        print(*line)


if __name__ == "__main__":
    sys.exit(main())
