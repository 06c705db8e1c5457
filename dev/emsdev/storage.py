"""Volumes: folders of this host in a fixed number of PersistentVolumes, and the daemon that makes used ones new again.

Run as a program (`python3 -m emsdev.storage`) this is that daemon.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from .api import Api, ApiError, Object
from .base import REPO, Daemon, StepError, cache_key
from .layout import NODE, VOLUMES

CLASS = "local"
COUNT = 40
_VOLUMES = "/api/v1/persistentvolumes"
_INTERVAL = 1.0


def _volume(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "ems-bots-dev"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "10Gi"},
            "storageClassName": CLASS,
            # Nobody but us knows how to delete a folder of this host; see `recycle_volumes`.
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(VOLUMES / name)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
                    ]
                }
            },
        },
    }


def _fresh_folder(path: Path) -> None:
    """An empty folder that any user may write to: a pod's user has no name on this host."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    path.chmod(0o777)


def apply(api: Api) -> None:
    """The default StorageClass and its volumes, as far as they are missing."""
    group = "storage.k8s.io/v1"
    api.apply(
        f"/apis/{group}/storageclasses/{CLASS}",
        {
            "apiVersion": group,
            "kind": "StorageClass",
            "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )
    present = {item["metadata"]["name"] for item in api.get(_VOLUMES)["items"]}
    for number in range(COUNT):
        name = f"local-{number:02}"
        if name not in present:
            _fresh_folder(VOLUMES / name)
            api.request("POST", _VOLUMES, _volume(name))


def _is_mounted(path: Path) -> bool:
    """Whether a pod still has the folder: the kubelet mounts it a second time, below its own, under the same root."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mount_point = path
    while not mount_point.is_mount():
        mount_point = mount_point.parent
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    base = next((m[3] for m in reversed(mounts) if m[4] == str(mount_point) and m[2] == number), "/")
    root = str(Path(base) / path.relative_to(mount_point))
    return any(m[2] == number and m[3] == root for m in mounts)


def recycle_volumes(api: Api | None = None) -> list[str]:
    """Empty the volumes whose claim was deleted and make them available again. Returns their names."""
    api = api or Api()
    done = []
    for item in api.get(_VOLUMES)["items"]:
        name, spec = item["metadata"]["name"], item["spec"]
        if spec.get("storageClassName") != CLASS or item.get("status", {}).get("phase") != "Released":
            continue
        path = VOLUMES / name
        if spec.get("local", {}).get("path") != str(path) or (path.exists() and _is_mounted(path)):
            continue
        _fresh_folder(path)
        try:
            # With the version that we saw: a claim that comes in between keeps its volume.
            api.merge(
                f"{_VOLUMES}/{name}",
                {
                    "metadata": {
                        "resourceVersion": item["metadata"]["resourceVersion"],
                        "annotations": {"pv.kubernetes.io/bound-by-controller": None},
                    },
                    "spec": {"claimRef": None},
                },
            )
        except ApiError as error:
            if error.status in (404, 409):  # changed meanwhile: the next round sees how
                continue
            raise
        done.append(name)
    return done


def daemon() -> Daemon:
    own = cache_key(Path(__file__))  # a changed program is started anew
    return Daemon(
        "volume-recycler",
        [sys.executable, "-m", "emsdev.storage"],
        env={
            "PYTHONPATH": str(REPO / "dev"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "EMS_CONFIG": own,
        },
    )


def main() -> None:
    api = Api()
    problem = ""
    while True:
        try:
            for name in recycle_volumes(api):
                print(f"{name}: empty and available again", flush=True)
            problem = ""
        except (StepError, OSError) as error:
            if str(error) != problem:  # once, not every second while the API server is down
                problem = str(error)
                print(problem, file=sys.stderr, flush=True)
        time.sleep(_INTERVAL)


if __name__ == "__main__":
    main()
