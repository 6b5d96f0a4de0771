"""Config drives: the door of `pycdlib`.

A config drive is found by the guest by its label, `config-2`, and its files by their real names.
ISO 9660 alone would give META_DATA.JSON;1, so each file is also named in Rock Ridge (read by Linux
and the BSDs) and in Joliet (read by Windows), and both names are the true ones. The digest of what
is inside stands in the volume's application identifier, where an observer reads it back.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import closing
from io import BytesIO
from pathlib import Path, PurePosixPath

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from wisp.errors import StepFailed

LABEL = "config-2"
ROOT = PurePosixPath("/")
_DESCRIPTOR = 16 * 2048
_APPLICATION = slice(574, 702)


def write(path: Path, digest: str, files: Iterable[tuple[str, str]]) -> None:
    """An ISO at `path` with these files: path inside -> text."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL, app_ident_str=digest)
    with closing(iso), path.open("wb") as out:
        made = {ROOT}
        try:
            for name, text in sorted(files):
                _add(iso, ROOT / name, text.encode(), made)
            iso.write_fp(out)
        except PyCdlibException as error:
            raise StepFailed("SeedRefused", f"The config drive cannot be written: {error}.", patience=1) from error


def digest(path: Path) -> str:
    """The digest a config drive was written for; "" when it is none."""
    with path.open("rb") as file:
        file.seek(_DESCRIPTOR)
        volume = file.read(2048)
    return volume[_APPLICATION].decode("ascii", "replace").strip() if volume[:6] == b"\x01CD001" else ""


def _add(iso: pycdlib.PyCdlib, path: PurePosixPath, content: bytes, made: set[PurePosixPath]) -> None:
    for directory in reversed(path.parents):
        if directory not in made:
            iso.add_directory(str(_plain(directory)), directory.name, str(directory), file_mode=0o040555)
            made.add(directory)
    plain = _plain(path.parent) / f"{_word(path.stem)}.{_word(path.suffix)};1"
    iso.add_fp(BytesIO(content), len(content), str(plain), rr_name=path.name, joliet_path=str(path), file_mode=0o100444)


def _plain(directory: PurePosixPath) -> PurePosixPath:
    return ROOT.joinpath(*map(_word, directory.parts[1:]))


def _word(text: str) -> str:
    """As ISO 9660 itself spells: capitals, digits, underscores."""
    return re.sub("[^A-Z0-9]", "_", text.upper().removeprefix("."))
