"""What was built is kept under a name made of what it was built from."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .core import CACHE, file_lock, step


def cache_key(*parts: str | bytes | Path) -> str:
    """A short name for contents: a Path stands for the file's contents, or for all files below a folder."""
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)

    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for file in files:
                add(str(file.relative_to(part)).encode() if part.is_dir() else b"")
                add(file.read_bytes())
        else:
            add(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def cached(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `CACHE/name-key`, filled by `build(folder)` if it is not there yet.

    Other keys of the same name go, except the newest one: going back and forth between two branches stays quick.
    """
    target = CACHE / f"{name}-{key}"
    if target.is_dir():
        os.utime(target)
        return target
    with file_lock(CACHE / f".{name}.lock", f"build {name}"):
        if target.is_dir():
            return target
        for left in CACHE.glob(f".{name}-*.tmp"):  # of a killed run: we hold the lock
            shutil.rmtree(left)
        building = CACHE / f".{name}-{key}.tmp"
        building.mkdir()
        with step(f"build {name}"):
            try:
                build(building)
                building.rename(target)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
        key_length = len(key)
        kept = [p for p in CACHE.glob(f"{name}-*") if p.is_dir() and len(p.name) == len(name) + 1 + key_length]
        for old in sorted(kept, key=lambda p: p.stat().st_mtime, reverse=True)[2:]:
            shutil.rmtree(old, ignore_errors=True)
    return target
