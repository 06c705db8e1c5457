"""The programs of the cluster, built from Go modules whose checksums are committed, and kept in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from .base import CACHE, StepError, apt_install, cache_key, cached, file_lock, sh
from .layout import TEMPLATES

KUBERNETES_VERSION = "v1.34.4"
_COMPONENTS = (
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
_HELM = "helm.sh/helm/v3"
_PAUSE_C = """\
/* The first process of every pod: holds its namespaces, reaps its orphans, ends when told to. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void quit(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(void) {
    signal(SIGTERM, quit);
    signal(SIGINT, quit);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def _go_version() -> str:
    if shutil.which("go") is None:
        raise StepError("cannot build the cluster's programs", "there is no `go`", "install Go 1.26 or later")
    return sh(["go", "env", "GOVERSION", "GOARCH"])


def _go_build(out: Path, package: str, extra_ldflags: str) -> None:
    # Two compilers at a time and politely: the machine is in use.
    sh(
        [
            "nice",
            "-n",
            "5",
            "go",
            "build",
            "-p",
            "2",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            # What the linker would throw away again is a tenth of the compilers' work.
            "-gcflags=all=-dwarf=false",
            "-ldflags",
            f"-s -w {extra_ldflags}",
            "-o",
            out,
            package,
        ],
        cwd=TEMPLATES / "kube",
        # Compilers live for seconds: they end sooner when they collect less garbage.
        env={"CGO_ENABLED": "0", "GOWORK": "off", "GOGC": "400"},
    )


def kube() -> Path:
    """The folder with etcd, CoreDNS, the components of Kubernetes and kubectl."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    package = "k8s.io/component-base/version"
    values = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor}
    ldflags = " ".join(f"-X {package}.{name}={value}" for name, value in values.items())

    def build(out: Path) -> None:
        _go_build(out / "kube", ".", ldflags)
        for component in _COMPONENTS:
            (out / component).symlink_to("kube")

    return cached("kube", cache_key(TEMPLATES / "kube", _go_version(), ldflags, *_COMPONENTS), build)


def helm() -> Path:
    """The folder with helm: a program of its own from the same libraries, which are compiled once for all of them."""
    version = next(
        line.split()[1] for line in (TEMPLATES / "kube" / "go.mod").read_text().splitlines() if _HELM in line
    )
    ldflags = f"-X {_HELM}/internal/version.version={version} -X {_HELM}/internal/version.metadata="
    key = cache_key(TEMPLATES / "kube", _go_version(), ldflags)
    return cached("helm", key, lambda out: _go_build(out / "helm", f"{_HELM}/cmd/helm", ldflags))


def pause() -> Path:
    """The folder with the static program `pause`."""

    def build(out: Path) -> None:
        apt_install("gcc", "libc6-dev")
        sh(["gcc", "-Os", "-static", "-s", "-x", "c", "-o", out / "pause", "-"], input=_PAUSE_C)

    return cached("pause", cache_key(_PAUSE_C), build)


def tools() -> Path:
    """A folder for a person's PATH: kubectl, helm and the rest, built if need be."""
    folder = CACHE / "bin"
    programs = {name: kube() / name for name in _COMPONENTS}
    programs["helm"] = helm() / "helm"
    with file_lock(CACHE / ".bin.lock", "link the tools"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, target in programs.items():
            link = folder / name
            if not link.is_symlink() or link.readlink() != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
    return folder
