"""Falcon, waitress and one guarded etcd transaction: `bare_process.py TARGET SHAPE` says its port, ends with its stdin.

SHAPE is JSON: how many guards of keys as they are, how many of keys that are absent, the bytes of each key and value
that is written, the bytes of the answer. The body is read as JSON, and that is all that is looked at.
"""
from __future__ import annotations

import itertools
import json
import sys
import threading

import falcon

from wisp.listener import Listener
from wisp.store import Absent, At, Guard, Put
from wisp.store.etcd import EtcdStore

store = EtcdStore(sys.argv[1])
shape = json.loads(sys.argv[2])
known = [Put(f"/known/{number}", b"x") for number in range(shape["at"])]
revision = store.commit([], known)
turns = itertools.count()


class Bare:
    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        json.load(req.bounded_stream)
        turn = next(turns)
        keys = [f"/{turn}/{number}".ljust(size, "k") for number, (size, _) in enumerate(shape["puts"])]
        guards: list[Guard] = [At(put.key, revision) for put in known]
        guards += [Absent(key) for key in keys[:shape["absent"]]]
        store.commit(guards, [Put(key, b"v" * size) for key, (_, size) in zip(keys, shape["puts"], strict=True)])
        resp.content_type, resp.data = "application/json", b" " * shape["answer"]


app: falcon.App[falcon.Request, falcon.Response] = falcon.App()
app.add_route("/bare", Bare())
listener = Listener(app, "127.0.0.1", 0, lambda status, reason: (f"{status} {reason}", "text/plain", b""))
serving = threading.Thread(target=listener.run)
serving.start()
print(listener.address[1], flush=True)
sys.stdin.read()
listener.close()
serving.join()
store.close()
