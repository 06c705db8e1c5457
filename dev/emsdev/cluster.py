"""A real single-node Kubernetes on this machine: `up`, `down`, `status`."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import binaries, certs, cleanup, containerd, controlplane, dns, image, kubelet, network, storage
from .api import Api
from .base import Daemon, StepError, apt_install, exclusive, note, step, wait_until
from .layout import KUBECONFIG, NODE

_PACKAGES = ("openssl", *containerd.PACKAGES, *kubelet.PACKAGES)


@dataclass(frozen=True)
class Part:
    daemon: Daemon
    ready: Callable[[], bool]


@dataclass(frozen=True)
class Status:
    parts: dict[str, str]
    """What each part is doing, in words, by its name."""
    healthy: bool


@dataclass(frozen=True)
class _Parts:
    """The programs of the cluster as they should run now."""

    etcd: Part
    containerd: Part
    apiserver: Part
    controller_manager: Part
    scheduler: Part
    proxy: Part
    dns: Part
    kubelet: Part
    recycler: Part

    def all(self) -> list[Part]:
        return list(vars(self).values())


def kubeconfig_path() -> Path:
    return KUBECONFIG


def _define() -> _Parts:
    kube = binaries.kube()
    certificates = certs.ensure()
    return _Parts(
        etcd=Part(controlplane.etcd(kube), controlplane.etcd_is_ready),
        containerd=Part(containerd.daemon(image.pause_name()), containerd.is_ready),
        apiserver=Part(controlplane.apiserver(kube, certificates), controlplane.apiserver_is_ready),
        controller_manager=Part(
            controlplane.controller_manager(kube, certificates), controlplane.controller_manager_is_ready
        ),
        scheduler=Part(controlplane.scheduler(kube, certificates), controlplane.scheduler_is_ready),
        proxy=Part(kubelet.proxy(kube, certificates), kubelet.proxy_is_ready),
        dns=Part(dns.daemon(kube, certificates), dns.is_ready),
        kubelet=Part(kubelet.kubelet(kube, certificates), kubelet.kubelet_is_ready),
        recycler=Part(storage.daemon(), lambda: True),
    )


def _is_healthy(parts: _Parts) -> bool:
    return (
        all(part.daemon.is_current() for part in parts.all())
        and network.is_up()
        and all(part.ready() for part in parts.all())
        and controlplane.node_is_ready()
    )


def up() -> Path:
    """Have a healthy cluster: start what does not run, replace what is outdated or does not answer. Returns the
    path of its kubeconfig."""
    # Built before the lock is taken: nobody has to wait for a compiler who only wants to start a database.
    for build in (binaries.kube, image.pause_archive):
        build()
    with exclusive("start the cluster"), step("cluster"):
        apt_install(*_PACKAGES)
        if not any(Daemon(name, []).running() for name in cleanup.DAEMONS):
            # Nothing runs: what lies about is of a run that was killed, or of the time before a reboot.
            keep = dns.hosts()
            cleanup.everything()
            for name, ip in keep.items():
                dns.set_host(name, ip)
        network.remember_before()
        parts = _define()
        if _is_healthy(parts):
            note("is up already")
            return KUBECONFIG
        try:
            _start(parts)
        except StepError as error:
            hint = error.hint or "see the logs"
            raise StepError(error.what, error.why, f"{hint}; from scratch: dev/run cluster down, then up") from error
    return KUBECONFIG


def _start(parts: _Parts) -> None:
    with step("network"):
        network.ensure()
        kubelet.ensure_cgroup()
    with step("etcd, API server, containerd"), concurrent.futures.ThreadPoolExecutor() as pool:
        node_side = pool.submit(_start_containerd, parts.containerd)
        parts.etcd.daemon.start(parts.etcd.ready, 30)
        parts.apiserver.daemon.start(parts.apiserver.ready, 90)
        node_side.result()
    with step("controllers, kubelet, proxy, DNS, volumes"):
        api = Api()
        dns.apply(api)  # before CoreDNS: it gives up for a while when it may not read yet
        together = (parts.kubelet, parts.controller_manager, parts.scheduler, parts.proxy, parts.dns, parts.recycler)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            starts = [pool.submit(part.daemon.start, part.ready, 60) for part in together]
            storage.apply(api)
            for start in starts:
                start.result()
        storage.recycle_volumes(api)
    with step(f"node {NODE}"):
        wait_until(controlplane.node_is_ready, 90, f"node {NODE} to be Ready")
        wait_until(_default_account_exists, 60, "the service account of namespace default")


def _start_containerd(part: Part) -> None:
    part.daemon.start(part.ready, 30)
    containerd.import_archive(image.pause_archive(), image.pause_name(), pinned=True)


def _default_account_exists() -> bool:
    """Without it no pod can be created: the last thing that a new cluster gets."""
    return Api().get_or_none("/api/v1/namespaces/default/serviceaccounts/default") is not None


def down() -> None:
    """End the cluster and remove all traces of it but the cache."""
    with exclusive("stop the cluster"), step("remove the cluster"):
        cleanup.everything()


def status() -> Status:
    """How the cluster is; changes nothing."""
    words: dict[str, str] = {}
    checks: dict[str, Callable[[], bool]] = {
        "containerd": containerd.is_ready,
        "etcd": controlplane.etcd_is_ready,
        "kube-apiserver": controlplane.apiserver_is_ready,
        "kube-controller-manager": controlplane.controller_manager_is_ready,
        "kube-scheduler": controlplane.scheduler_is_ready,
        "kube-proxy": kubelet.proxy_is_ready,
        "kubelet": kubelet.kubelet_is_ready,
        "coredns": dns.is_ready,
        "volume-recycler": lambda: True,
    }
    healthy = True
    for name, ready in checks.items():
        pid = Daemon(name, []).pid()
        answers = pid is not None and ready()
        healthy = healthy and answers
        words[name] = "does not run" if pid is None else f"process {pid}, {'ready' if answers else 'does not answer'}"
    try:
        node_ready = healthy and controlplane.node_is_ready()
    except StepError:
        node_ready = False
    words[f"node {NODE}"] = "Ready" if node_ready else "not Ready"
    return Status(words, healthy and node_ready)


def set_apiserver_flags(flags: Sequence[str]) -> None:
    """More flags for the API server, for example `--audit-webhook-config-file=/path`; [] takes them away again.

    A running API server is started again if they, or a file that one of them names, changed. `down` forgets them.
    With flags that it refuses it is started with those from before, and the refusal is raised.
    """
    with exclusive("configure the API server"):
        before = controlplane.extra_flags()
        controlplane.set_extra_flags(flags)
        if not Daemon("kube-apiserver", []).running():
            return
        with step("API server"):
            part = _define().apiserver
            try:
                part.daemon.start(part.ready, 90)
            except StepError:
                controlplane.set_extra_flags(before)
                part = _define().apiserver
                part.daemon.start(part.ready, 90)
                raise
