"""`dev/run fuzz`: throws mutated inputs at what reads hostile ones, with cargo-fuzz."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import product
from .base import CACHE, REPO, StepError, note, sh, step

_VERSION = "0.13.1"
_FOLDER = REPO / "fuzz"


def targets() -> list[str]:
    return sorted(file.stem for file in (_FOLDER / "fuzz_targets").glob("*.rs"))


def _tool() -> Path:
    """cargo-fuzz, installed into the cache where it is missing."""
    if found := shutil.which("cargo-fuzz"):
        return Path(found)
    root = CACHE / f"cargo-fuzz-{_VERSION}"
    tool = root / "bin" / "cargo-fuzz"
    if not tool.exists():
        with step(f"install cargo-fuzz {_VERSION}"):
            options = ("--quiet", "--locked", "--root", str(root), "--version", _VERSION)
            sh(["cargo", "install", *options, "cargo-fuzz"], timeout=1800)
    return tool


def run(names: list[str], seconds: int) -> None:
    """Each target for so many seconds. What was found interesting is kept in the cache and used again."""
    unknown = sorted(set(names) - set(targets()))
    if unknown:
        raise StepError(f"there is no fuzz target {unknown[0]}", "", f"one of: {', '.join(targets())}")
    tool = _tool()
    os.environ["PATH"] = f"{tool.parent}:{os.environ['PATH']}"
    built = CACHE / "fuzz-target"
    # The same versions as everywhere; cargo adds what only fuzzing needs.
    shutil.copy(REPO / "Cargo.lock", _FOLDER / "Cargo.lock")
    for name in names or targets():
        corpus = CACHE / "fuzz-corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        failures = CACHE / "fuzz-failures" / name
        failures.mkdir(parents=True, exist_ok=True)
        # Without a sanitizer, which the stable compiler does not have: the package has no unsafe code to watch.
        command = ("fuzz", "run", "--fuzz-dir", str(_FOLDER), "--target-dir", str(built), "--sanitizer", "none", name)
        limits = (f"-max_total_time={seconds}", "-timeout=10", "-max_len=16384", f"-artifact_prefix={failures}/")
        seeds = (str(corpus), str(_FOLDER / "seeds" / name))
        product.cargo(f"fuzz {name} for {seconds} s", *command, *seeds, "--", *limits, timeout=seconds + 3600)
        note(f"nothing found in {seconds} s; the corpus is {corpus}")
