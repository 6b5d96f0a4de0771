"""A depot in memory, with the rules of the real one: no disk over an image that is not here, no image
dropped from under a disk, a disk that is there is never replaced, names made of digests and uids only.

Every image URL is found, except on hosts that end in `.invalid`, a domain that DNS promises never to
have; so both a good and a failing image can be had without a network. Nothing is downloaded, so no
digest is computed, and an image has no size that would enlarge a disk.
"""
from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from pathlib import Path

from wisp.adapters import layout, origin
from wisp.errors import StepFailed
from wisp.host import Disk, Image, Seed

ANYWHERE = Path("/")


class FakeDepot:
    """`failures`: what the next steps end with, in turn. `written`: path in the drive -> text, by uid and digest.
    `consoles`: uid -> what an instance wrote to its console."""

    def __init__(self) -> None:
        self.failures: list[StepFailed] = []
        self.written: dict[tuple[str, str], dict[str, str]] = {}
        self.consoles: dict[str, bytes] = {}
        self._files: dict[Path, Image | Disk | Seed] = {}
        self._lock = threading.Lock()

    def has_disk(self, uid: str, index: int) -> bool:
        return layout.disk(ANYWHERE, uid, index) in self._files

    def has_seed(self, uid: str, digest: str) -> bool:
        return layout.seed(ANYWHERE, uid, digest) in self._files

    def lose(self, disk: Disk) -> None:
        """As `rm` of its file, by the hands of others."""
        with self._lock:
            del self._files[layout.disk(ANYWHERE, disk.uid, disk.index)]

    def observe(self, tokens: Collection[str] | None) -> Iterable[Image | Disk | Seed]:
        with self._lock:
            here = list(self._files.values())
        wanted = set(tokens or ())
        return here if tokens is None else [part for part in here if part.token in wanted]

    def fetch(self, image: Image) -> None:
        path = layout.image(ANYWHERE, image.sha256)
        with self._lock:
            if path in self._files:
                return
            self._stumble()
            host = origin.accepted(image.url).hostname or ""
            if host.endswith(".invalid"):
                raise StepFailed("DownloadFailed", f"The download from {origin.shown(image.url)} failed: no such host.")
            self._files[path] = Image(image.sha256)

    def drop_image(self, image: Image) -> None:
        with self._lock:
            self._stumble()
            if any(isinstance(part, Disk) and part.sha256 == image.sha256 for part in self._files.values()):
                raise StepFailed("ImageInUse", "A disk of this node lies on the image.")
            self._files.pop(layout.image(ANYWHERE, image.sha256), None)

    def create_disk(self, disk: Disk) -> None:
        path = layout.disk(ANYWHERE, disk.uid, disk.index)
        with self._lock:
            self._stumble()
            if path in self._files:
                return
            if disk.sha256 and layout.image(ANYWHERE, disk.sha256) not in self._files:
                raise StepFailed("ImageMissing", "The image of the disk is not on this node.")
            self._files[path] = Disk(disk.uid, disk.index, disk.size_gib, disk.sha256)

    def drop_disk(self, disk: Disk) -> None:
        with self._lock:
            self._stumble()
            self._files.pop(layout.disk(ANYWHERE, disk.uid, disk.index), None)

    def write_seed(self, seed: Seed, user_data: str | None) -> None:
        path = layout.seed(ANYWHERE, seed.uid, seed.digest)
        extra = {} if user_data is None else {"openstack/latest/user_data": user_data}
        with self._lock:
            self._stumble()
            self._files[path] = Seed(seed.uid, seed.digest)
            self.written.setdefault((seed.uid, seed.digest), dict(seed.files) | extra)

    def drop_seed(self, seed: Seed) -> None:
        with self._lock:
            self._stumble()
            self._files.pop(layout.seed(ANYWHERE, seed.uid, seed.digest), None)
            self.written.pop((seed.uid, seed.digest), None)

    def console(self, uid: str, limit: int) -> str:
        layout.console(ANYWHERE, uid)
        with self._lock:
            self._stumble()
            return self.consoles.get(uid, b"")[-limit:].decode(errors="replace")

    def _stumble(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
