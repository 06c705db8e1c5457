"""containerd with a root, a state folder and a socket of its own, and `ctr` to talk to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from .base import Daemon, cache_key, sh, succeeds, write
from .layout import CONFIG, CONTAINERD, CONTAINERD_RUN, CONTAINERD_SOCKET, TEMPLATES
from .network import CNI_CONFIG

PACKAGES = ("containerd", "runc", "containernetworking-plugins")


def daemon(pause_image: str) -> Daemon:
    text = Template((TEMPLATES / "containerd.toml").read_text()).substitute(
        root=CONTAINERD, state=CONTAINERD_RUN / "state", socket=CONTAINERD_SOCKET, cni=CNI_CONFIG, pause=pause_image
    )
    config = CONFIG / "containerd.toml"
    write(config, text)
    CONTAINERD_RUN.mkdir(parents=True, exist_ok=True)
    return Daemon("containerd", ["/usr/bin/containerd", "--config", config], env={"EMS_CONFIG": cache_key(text)})


def ctr(*words: str | Path, timeout: float = 60) -> str:
    """`ctr` on our containerd, in the namespace that the kubelet's images and pods are in."""
    argv: Sequence[str | Path] = ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *words]
    return sh(argv, timeout=timeout)


def is_ready() -> bool:
    if not CONTAINERD_SOCKET.exists():
        return False
    return succeeds(["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "version"])


def images() -> dict[str, str]:
    """The digest of each image by its name."""
    rows = [line.split() for line in ctr("images", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def remove_images(names: Iterable[str]) -> None:
    """Remove images under all their names: the kubelet's interface gives each a second one, made of its digest."""
    present = images()
    digests = {present[name] for name in names if name in present}
    doomed = [name for name, digest in present.items() if digest in digests]
    if doomed:
        ctr("images", "rm", *doomed)


def import_archive(archive: Path, name: str, pinned: bool = False) -> bool:
    """Import an OCI archive unless an image of that name is there. Names are made of contents, so it is the same."""
    if name in images():
        return False
    ctr("images", "import", "--snapshotter", "overlayfs", archive, timeout=300)
    if pinned:
        ctr("images", "label", name, "io.cri-containerd.pinned=pinned")
    return True
