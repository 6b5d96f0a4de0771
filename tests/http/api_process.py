"""An API process on a store that others use too: `api_process.py TARGET` says its port, and ends with its stdin."""
from __future__ import annotations

import sys
import threading
import uuid

from wisp.api import build
from wisp.api.problems import refusal
from wisp.listener import Listener
from wisp.service import Service
from wisp.store.etcd import EtcdStore

store = EtcdStore(sys.argv[1])
service = Service(store)
service.start(str(uuid.uuid4()))
listener = Listener(build(service.resources, service.catalogue), "127.0.0.1", 0, refusal(service.catalogue.errors), threads=8)
serving = threading.Thread(target=listener.run)
serving.start()
print(listener.address[1], flush=True)
sys.stdin.read()
service.resources.close()
listener.close()
serving.join()
service.stop()
store.close()
