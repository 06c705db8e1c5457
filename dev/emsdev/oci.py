"""OCI image archives without a container engine: one layer, and the same bytes for the same contents."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAME_ANNOTATION = "io.containerd.image.name"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Entry:
    """A file (contents, or the path of a file on this host) or, with neither, a folder."""

    path: str
    data: bytes | None = None
    source: Path | None = None
    mode: int = 0o644


@dataclass(frozen=True)
class Image:
    repository: str
    """Without a tag: that is made of the contents. `ems-bots` means `localhost/ems-bots`: of this machine."""
    entries: Sequence[Entry]
    entrypoint: Sequence[str]
    user: str = "65532:65532"
    env: Sequence[str] = field(default_factory=lambda: ["PATH=/usr/local/bin:/usr/bin:/bin"])


def full_name(repository: str) -> str:
    return repository if "/" in repository else f"localhost/{repository}"


def _write_layer(entries: Sequence[Entry], file: Any) -> None:
    folders = {e.path.strip("/"): e for e in entries if e.data is None and e.source is None}
    files = {e.path.strip("/"): e for e in entries if e.data is not None or e.source is not None}
    for name in [*folders, *files]:
        for parent in Path(name).parents:
            if str(parent) != ".":
                folders.setdefault(str(parent), Entry(str(parent), mode=0o755))
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, entry in sorted((folders | files).items()):
            info = tarfile.TarInfo(name)  # its owner is root and its time 1970 unless told otherwise
            info.mode = entry.mode if name in files or entry.mode != 0o644 else 0o755
            if name in folders:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif entry.source is not None:
                with entry.source.open("rb") as contents:
                    info.size = entry.source.stat().st_size
                    tar.addfile(info, contents)
            else:
                info.size = len(entry.data or b"")
                tar.addfile(info, io.BytesIO(entry.data or b""))


def _sha256(file: Any) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_archive(image: Image, out: Path) -> str:
    """Write the archive. Returns the image's full name with a tag that is made of its contents."""
    out.parent.mkdir(parents=True, exist_ok=True)
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    with tempfile.TemporaryFile(dir=out.parent) as layer:
        _write_layer(image.entries, layer)
        layer_digest = _sha256(layer)
        layer_size = layer.seek(0, io.SEEK_END)

        blobs: dict[str, bytes] = {}

        def blob(media_type: str, content: Any) -> dict[str, Any]:
            data = json.dumps(content, sort_keys=True).encode()
            digest = hashlib.sha256(data).hexdigest()
            blobs[digest] = data
            return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

        config = blob(
            "application/vnd.oci.image.config.v1+json",
            {
                "architecture": architecture,
                "os": "linux",
                "config": {
                    "User": image.user,
                    "Entrypoint": list(image.entrypoint),
                    "Env": list(image.env),
                    "WorkingDir": "/",
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            },
        )
        manifest = blob(
            "application/vnd.oci.image.manifest.v1+json",
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config,
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": f"sha256:{layer_digest}",
                        "size": layer_size,
                    }
                ],
            },
        )
        tag = manifest["digest"].removeprefix("sha256:")[:12]
        name = f"{full_name(image.repository)}:{tag}"
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    **manifest,
                    "platform": {"architecture": architecture, "os": "linux"},
                    "annotations": {_NAME_ANNOTATION: name, "org.opencontainers.image.ref.name": tag},
                }
            ],
        }
        small = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        small |= {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
        with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
            for path, data in small.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            info = tarfile.TarInfo(f"blobs/sha256/{layer_digest}")
            info.size = layer_size
            layer.seek(0)
            tar.addfile(info, layer)
    return name


def archive_name(archive: Path) -> str:
    """The full name of the image in an archive."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None, f"{archive} has no index.json: it is not an OCI archive"
        return str(json.load(file)["manifests"][0]["annotations"][_NAME_ANNOTATION])
