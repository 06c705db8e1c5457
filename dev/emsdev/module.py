"""`dev/run module`: everything that is checked of synapse-module/, the Synapse module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .base import CACHE, REPO, sh, step
from .service_common import python_environment
from .synapse import MODULE, REQUIREMENTS

TOOLS = REPO / "dev/emsdev/requirements-module.txt"
_RULES = [f"tests.unit.test_{name}" for name in ("config", "rules", "hostile")]


def rules() -> None:
    """The part that needs nothing but Python, in a second: for the fast loop."""
    with step("the rules of the Synapse module"):
        _unittest(Path(sys.executable), *_RULES)


def run(only: str = "") -> None:
    """Lints and types, the unit tests, and the tests on real homeservers, which are made and removed here."""
    with step("the Synapse module"):
        synapse = python_environment("synapse", REQUIREMENTS)
        with step("format, lints and types"):
            _lint(synapse)
        with step("unit tests"):
            _unittest(synapse, *_RULES, "tests.unit.test_module")
        with step("rooms on real homeservers"):
            pattern = f"test_{only}*.py" if only else "test_*.py"
            _unittest(Path(sys.executable), "discover", "-s", "tests/real", "-t", ".", "-p", pattern)


def _lint(synapse: Path) -> None:
    # By module: the scripts of an environment name the folder that it was built in.
    tools = python_environment("module-tools", TOOLS)
    sh([tools, "-m", "ruff", "check", "--no-cache", "."], cwd=MODULE)
    sh([tools, "-m", "ruff", "format", "--no-cache", "--check", "."], cwd=MODULE)
    sh([tools, "-m", "mypy", "--python-executable", synapse, "--cache-dir", CACHE / "module-mypy"], cwd=MODULE)


def _unittest(python: Path, *words: str) -> None:
    path = os.pathsep.join([str(MODULE), str(REPO / "dev")])
    env = {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    sh([python, "-m", "unittest", *words], cwd=MODULE, env=env, timeout=900)
