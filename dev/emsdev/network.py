"""The bridge that pods hang on, the CNI configuration that puts them there, and the settings of the kernel."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from .base import BRIDGE_IP, STATE, StepError, sh, succeeds, wait_until, write
from .layout import BRIDGE, CNI_RUN, CONFIG, POD_CIDR

NFT_TABLE = "ems-bots-dev"
CNI_NETWORK = "ems-bots-dev"
CNI_CONFIG = CONFIG / "cni"
_BEFORE = STATE / "before.json"

_SET = {
    "net/ipv4/ip_forward": 1,
    "net/bridge/bridge-nf-call-iptables": 1,  # a pod that calls a Service whose pod is on the same bridge needs it
}
_AT_LEAST = {"fs/inotify/max_user_instances": 1024, "fs/inotify/max_user_watches": 262144}
# What the kubelet and kube-proxy set by themselves; we only put it back.
_TOUCHED = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/conf/all/route_localnet",
)
# Folders that the programs make at fixed places. Those that were not there before go again.
_FIXED_FOLDERS = (
    "/etc/cni",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/netns",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)


def remember_before() -> None:
    """Note how the machine was, once, so that `restore_before` can leave it like that."""
    if _BEFORE.exists():
        return
    settings = {}
    for name in (*_SET, *_AT_LEAST, *_TOUCHED):
        with contextlib.suppress(OSError):
            settings[name] = Path("/proc/sys", name).read_text().strip()
    folders = [folder for folder in _FIXED_FOLDERS if Path(folder).exists()]
    write(_BEFORE, json.dumps({"settings": settings, "folders": folders}, indent=2))


def before() -> tuple[dict[str, str], list[Path]]:
    """The settings to put back, and the folders to remove because they came with us."""
    if not _BEFORE.exists():
        return {}, []
    noted = json.loads(_BEFORE.read_text())
    return noted["settings"], [Path(folder) for folder in _FIXED_FOLDERS if folder not in noted["folders"]]


def forget_before() -> None:
    _BEFORE.unlink(missing_ok=True)


def set_kernel(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        path = Path("/proc/sys", name)
        with contextlib.suppress(OSError):  # absent, or not ours to set in this environment: what needs it will say so
            if path.read_text().strip() != value:
                path.write_text(value)


def ensure() -> None:
    """Bridge, address, masquerading, kernel settings, CNI configuration."""
    wanted = {name: str(value) for name, value in _SET.items()}
    for name, least in _AT_LEAST.items():
        with contextlib.suppress(OSError):
            wanted[name] = str(max(least, int(Path("/proc/sys", name).read_text())))
    set_kernel(wanted)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    if forwarding != "1":
        raise StepError("cannot switch on net.ipv4.ip_forward", "", "pods have no network without it")

    # Made before the first pod, so that servers on this host can listen on its address; with a fixed hardware
    # address, because a bridge otherwise takes the lowest of its ports' and changes it under its neighbours.
    if not Path("/sys/class/net", BRIDGE).exists():
        sh(["ip", "link", "add", BRIDGE, "address", "0a:58:0a:f4:00:01", "type", "bridge"])
    addresses = sh(["ip", "-o", "-4", "addr", "show", "dev", BRIDGE])
    prefix = POD_CIDR.rpartition("/")[2]
    if f"inet {BRIDGE_IP}/{prefix} " not in addresses:
        if "inet " in addresses:
            raise StepError(
                f"the bridge {BRIDGE} belongs to someone else",
                addresses,
                "another cluster is on this machine: stop it, or use a machine (or a network namespace) of its own",
            )
        sh(["ip", "addr", "add", f"{BRIDGE_IP}/{prefix}", "dev", BRIDGE])
    sh(["ip", "link", "set", BRIDGE, "up"])
    wait_until(lambda: f"local {BRIDGE_IP} " in sh(["ip", "route", "show", "table", "local"]), 5, BRIDGE_IP)

    # In a table of ours and not by the CNI plugin, whose chains in the tables of iptables outlive killed pods.
    sh(
        ["nft", "-f", "-"],
        input=f"""
        table ip {NFT_TABLE}
        delete table ip {NFT_TABLE}
        table ip {NFT_TABLE} {{
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {POD_CIDR} ip daddr != {{ {POD_CIDR}, 224.0.0.0/4 }} masquerade
            }}
        }}
    """,
    )
    conflist = {
        "cniVersion": "1.0.0",
        "name": CNI_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(CNI_RUN),
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": POD_CIDR, "gateway": BRIDGE_IP}]],
                },
            }
        ],
    }
    write(CNI_CONFIG / f"{CNI_NETWORK}.conflist", json.dumps(conflist, indent=2) + "\n")


def is_up() -> bool:
    return Path("/sys/class/net", BRIDGE).exists() and succeeds(["nft", "list", "table", "ip", NFT_TABLE])
