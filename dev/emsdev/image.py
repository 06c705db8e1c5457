"""The image of ems-bots (and the one of `pause`): built from a binary, imported where the kubelet finds it."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from . import binaries, containerd
from .base import StepError, apt_install, cache_key, cached, note, sh, step, write
from .layout import CONFIG
from .oci import Entry, Image, archive_name, write_archive

REPOSITORY = "ems-bots"
_UID = 65532
_KEEP = 2
_CA_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_IMPORTED = CONFIG / "images.json"


def _libraries(binary: Path) -> list[Path]:
    """The loader and the shared libraries of a binary, at the paths at which the loader looks for them."""
    if "statically linked" in sh(["file", "-b", binary]):
        return []
    output = sh(["ldd", binary])
    missing = [line.strip() for line in output.splitlines() if "not found" in line]
    if missing:
        raise StepError(f"{binary} does not run on this host", "\n".join(missing), "install these libraries")
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", output)]


def base_entries() -> list[Entry]:
    """What every image has besides its program: certificate authorities, the user, /tmp, how to look up hosts."""
    apt_install("ca-certificates")
    return [
        Entry("/etc/ssl/certs/ca-certificates.crt", source=_CA_CERTIFICATES),
        Entry("/etc/passwd", f"root:x:0:0::/:/sbin/nologin\nems-bots:x:{_UID}:{_UID}::/tmp:/sbin/nologin\n".encode()),
        Entry("/etc/group", f"root:x:0:\nems-bots:x:{_UID}:\n".encode()),
        # Without it the GNU libc asks DNS before it looks into /etc/hosts.
        Entry("/etc/nsswitch.conf", b"hosts: files dns\n"),
        Entry("/tmp", mode=0o1777),
    ]


def program_entries(binary: Path, path: str) -> list[Entry]:
    """A program with all that it needs to run."""
    return [
        Entry(path, source=binary, mode=0o755),
        *(Entry(str(library), source=library.resolve(), mode=0o755) for library in _libraries(binary)),
    ]


def build_image(name: str, binary: Path, out: Path) -> str:
    """Write an OCI archive with the binary at /usr/local/bin/ems-bots. Returns the image's full name with its tag."""
    if not binary.is_file():
        raise StepError(f"cannot build the image {name}", f"there is no file {binary}", "build it first: cargo build")
    apt_install("binutils", "file")
    program = "/usr/local/bin/ems-bots"
    with tempfile.TemporaryDirectory() as scratch:
        stripped = Path(scratch, "ems-bots")
        sh(["strip", "--strip-debug", "-o", stripped, binary])  # keeps the names that a backtrace prints
        entries = [*base_entries(), *program_entries(stripped, program)]
        reference = write_archive(Image(name, entries, [program]), out)
        note(f"{reference}: {_mb(out)} (the binary {_mb(stripped)}, with debug information {_mb(binary)})")
    return reference


def _mb(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def import_image(archive: Path) -> str:
    """Make an image known to the kubelet, unless it is, and drop all but the newest of the same repository. Returns
    its full name: use it with `imagePullPolicy: IfNotPresent`, for there is no registry."""
    if not containerd.is_ready():
        raise StepError("cannot import an image", "the cluster does not run", "start it: dev/run cluster up")
    name = archive_name(archive)
    repository = name.rpartition(":")[0]
    with step(f"import {name}"):
        containerd.import_archive(archive, name)
        imported = json.loads(_IMPORTED.read_text()) if _IMPORTED.exists() else []
        order = [*(other for other in imported if other != name), name]
        same = [other for other in order if other.rpartition(":")[0] == repository]
        old = set(same[:-_KEEP])
        containerd.remove_images(old)
        write(_IMPORTED, json.dumps([other for other in order if other not in old]))
    return name


def archive_for(binary: Path) -> Path:
    """The archive of ems-bots with this binary, built unless it is in the cache."""
    if not binary.is_file():
        raise StepError("cannot build the image", f"there is no file {binary}", "build it first: cargo build")
    key = cache_key(binary, Path(__file__), Path(__file__).with_name("oci.py"))
    return cached("image", key, lambda out: _build_into(binary, out)) / "image.tar"


def _build_into(binary: Path, out: Path) -> None:
    build_image(REPOSITORY, binary, out / "image.tar")


def ensure(binary: Path) -> str:
    """Build and import as needed. Returns the full name, for example `localhost/ems-bots:0123456789ab`."""
    return import_image(archive_for(binary))


def pause_archive() -> Path:
    program = binaries.pause() / "pause"

    def build(out: Path) -> None:
        entries = [Entry("/pause", source=program, mode=0o755)]
        write_archive(Image("ems-bots-dev-pause", entries, ["/pause"]), out / "image.tar")

    return cached("pause-image", cache_key(program, Path(__file__).with_name("oci.py")), build) / "image.tar"


def pause_name() -> str:
    return archive_name(pause_archive())
