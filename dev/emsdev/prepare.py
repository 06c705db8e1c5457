"""What does not depend on the product: made beside the compiler, which does not keep all cores at work."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from . import binaries, module, node
from .base import CACHE, REPO, note, step
from .service_common import python_environment
from .synapse import REQUIREMENTS

_LOG = CACHE / "prepare.log"


def everything() -> None:
    """The programs of the cluster, Synapse and the client of the tests. Whatever is in the cache takes no time."""
    python_environment("synapse", REQUIREMENTS)
    python_environment("module-tools", module.TOOLS)
    node.client_argv()
    binaries.tools()
    binaries.pause()


@contextlib.contextmanager
def beside() -> Iterator[None]:
    """Prepares everything in a process of its own while the block runs. What fails there is not lost: whoever needs it
    tries again, and says why it fails."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with _LOG.open("w") as log:
        process = subprocess.Popen(
            [REPO / "dev" / "run", "prepare"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
        if process.poll() is None:
            with step("the cluster's programs, Synapse and the test client"):
                note(f"begun in the background; the log is {_LOG}")
                process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
