"""A TCP stream as fast as it goes, for `test_vxlan`.

    pump.py drink ADDRESS           prints its port; takes one stream, and prints the bytes a second of it
    pump.py pour ADDRESS PORT SECS  fills it
"""
from __future__ import annotations

import socket
import sys
import time

GULP = 1 << 18


def drink(address: str) -> None:
    with socket.create_server((address, 0)) as tap:
        print(tap.getsockname()[1], flush=True)
        stream, _ = tap.accept()
        room, total, begun = bytearray(GULP), 0, time.perf_counter()
        while count := stream.recv_into(room):
            total += count
        print(total / (time.perf_counter() - begun), flush=True)


def pour(address: str, port: str, seconds: str) -> None:
    with socket.create_connection((address, int(port))) as stream:
        water, end = bytes(GULP), time.perf_counter() + float(seconds)
        while time.perf_counter() < end:
            stream.sendall(water)


if __name__ == "__main__":
    {"drink": drink, "pour": pour}[sys.argv[1]](*sys.argv[2:])
