"""The product itself on the local cluster: built, imported, installed with its chart, given a tenant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import binaries, cluster, dns, postgres
from .base import BRIDGE_IP, CACHE, REPO, StepError, apt_install, note, sh, step
from .synapse import Synapse

RELEASE = "ems-bots"
SYSTEM_NAMESPACE = "ems-bots-system"
CHART = REPO / "charts" / "ems-bots"
_BUILD_PACKAGES = ("gcc", "g++", "make", "cmake", "pkg-config", "ca-certificates")


def cargo_environment() -> dict[str, str]:
    """The environment of every cargo command: what it builds is kept outside of the checkout, and linted.

    Clippy compiles the package, as `cargo clippy` has it do, but in every build: one build lints and makes the program,
    and all dependencies are compiled once. `cargo clippy` and `cargo doc` would have them analysed a second time."""
    target = os.environ.get("CARGO_TARGET_DIR") or str(CACHE / "target")
    return {
        "CARGO_TARGET_DIR": target,
        "CARGO_TERM_COLOR": "never",
        "RUSTC_WORKSPACE_WRAPPER": str(_compiler(Path(target))),
        "CLIPPY_ARGS": "-Dwarnings__CLIPPY_HACKERY__",
        "CLIPPY_CONF_DIR": str(REPO),
    }


def _compiler(target: Path) -> Path:
    """A copy of dev/compile: Cargo takes what was compiled by a program in another folder for something else, and would
    keep the products of every checkout."""
    source, copy = REPO / "dev" / "compile", target / "compile"
    if not copy.exists() or copy.read_bytes() != source.read_bytes():
        target.mkdir(parents=True, exist_ok=True)
        fresh = copy.with_suffix(f".{os.getpid()}")
        shutil.copy2(source, fresh)
        fresh.replace(copy)
    return copy


def _forget_other_checkout(target: Path) -> None:
    """Cargo takes a source file that is older than its product for unchanged, and it names its products without the
    folder of the checkout. So what another checkout has built would pass for a build of this one."""
    mark = target / ".checkout"
    if mark.exists() and mark.read_text() == str(REPO):
        return
    for file in (
        REPO / "src" / "lib.rs",
        REPO / "src" / "main.rs",
        *(REPO / "tests").glob("*.rs"),
        *(REPO / "tests").glob("*/main.rs"),
        *(REPO / "benches").glob("*.rs"),
    ):
        file.touch()
    target.mkdir(parents=True, exist_ok=True)
    mark.write_text(str(REPO))


def cargo(title: str, *arguments: str, env: dict[str, str] | None = None, timeout: float = 3600) -> None:
    """One cargo command whose output a person may follow; a StepError if it fails."""
    apt_install(*_BUILD_PACKAGES)
    with step(title):
        environment = {**os.environ, **cargo_environment(), **(env or {})}
        _forget_other_checkout(Path(environment["CARGO_TARGET_DIR"]))
        # The step's own lines go to the same place, so the order of what is read is the order of what happened.
        sys.stdout.flush()
        done = subprocess.run(
            ["cargo", *arguments], cwd=REPO, env=environment, stdin=subprocess.DEVNULL, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise StepError(
                f"cargo {' '.join(arguments[:4])} failed", f"exit code {done.returncode}", "the lines above say why"
            )


def binary() -> Path:
    """Where cargo puts the binary of the development profile."""
    return Path(cargo_environment()["CARGO_TARGET_DIR"]) / "debug" / "ems-bots"


def build() -> Path:
    """The binary, up to date."""
    # With a test target, so that the features of dependencies are those with which the tests build them: with others,
    # Cargo would compile half of them a second time.
    cargo("build ems-bots", "build", "--locked", "--quiet", "--bin", "ems-bots", "--test", "architecture")
    return binary()


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    return sh(
        [binaries.kube() / "kubectl", *arguments],
        env={"KUBECONFIG": str(cluster.kubeconfig_path())},
        input=stdin,
        timeout=timeout,
    )


def kubectl_json(*arguments: str) -> dict[str, object]:
    value = json.loads(kubectl(*arguments, "--output", "json"))
    assert isinstance(value, dict)
    return value


def install(image_name: str) -> None:
    """Install or upgrade the operator with its chart; returns when it is available."""
    repository, _, tag = image_name.rpartition(":")
    with step(f"install the operator with Helm into namespace {SYSTEM_NAMESPACE}"):
        sh(
            [
                binaries.helm() / "helm",
                *("upgrade", "--install", RELEASE, CHART, "--namespace", SYSTEM_NAMESPACE, "--create-namespace"),
                *("--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"),
                *("--set", "image.pullPolicy=IfNotPresent", "--values", REPO / "dev" / "cluster" / "values.yaml"),
                *("--wait", "--timeout", "3m"),
            ],
            env={"KUBECONFIG": str(cluster.kubeconfig_path())},
            timeout=200,
        )


def installed() -> bool:
    found = kubectl("get", "deployments", "--namespace", SYSTEM_NAMESPACE, "--output", "name", "--ignore-not-found")
    return found != ""


def uninstall() -> None:
    with step("uninstall the operator"):
        sh(
            [binaries.helm() / "helm", "uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--ignore-not-found"],
            env={"KUBECONFIG": str(cluster.kubeconfig_path())},
            timeout=120,
        )


def secret(namespace: str, name: str, data: dict[str, str], annotations: dict[str, str] | None = None) -> None:
    """Apply a Secret; its values go through standard input, never through a command line."""
    kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        "-",
        stdin=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
                "stringData": data,
            }
        ),
    )


def tenant_secrets(namespace: str, homeserver: Synapse, database: postgres.TenantDb) -> None:
    """The two Secrets that a tenant's bots need, under their default names."""
    for name in homeserver.pod_names:
        dns.set_host(name, BRIDGE_IP)
    secret(
        namespace,
        "ems-bots-homeserver",
        {"registration-shared-secret": homeserver.registration_shared_secret},
        {"ems.element.io/homeserver": homeserver.pod_internal_url},
    )
    secret(namespace, "ems-bots-database", database.secret())


def conditions(resource: dict[str, object]) -> dict[str, tuple[str, str, str]]:
    """Status, reason and message of each condition, by its type."""
    status = resource.get("status")
    listed = status.get("conditions", []) if isinstance(status, dict) else []
    return {one["type"]: (one["status"], one["reason"], one.get("message", "")) for one in listed}


def wait_ready(namespace: str, kinds: tuple[str, ...] = ("adminbots", "auditbots"), timeout: float = 240) -> None:
    """Wait until all bots of a namespace are Ready; shows what each is waiting for when that changes."""
    started, shown = time.monotonic(), ""
    while True:
        items = kubectl_json("get", ",".join(kinds), "--namespace", namespace)["items"]
        assert isinstance(items, list)
        lines = [_readiness(item) for item in items]
        if lines and all(ready for ready, _ in lines):
            return
        text = "; ".join(line for ready, line in lines if not ready) or "no bot yet"
        if text != shown:
            note(text)
            shown = text
        if time.monotonic() - started > timeout:
            raise StepError(
                f"the bots of namespace {namespace} are not Ready after {timeout:.0f} s",
                text,
                f"kubectl describe {','.join(kinds)} -n {namespace}; kubectl logs -n {SYSTEM_NAMESPACE} "
                f"-l app.kubernetes.io/name=ems-bots --tail 50",
            )
        time.sleep(1)


def _readiness(item: dict[str, object]) -> tuple[bool, str]:
    known = conditions(item)
    metadata = item["metadata"]
    assert isinstance(metadata, dict)
    name = f"{item['kind']} {metadata['name']}"
    if known.get("Ready", ("",))[0] == "True":
        return True, name
    failing = [
        f"{kind} ({reason})" for kind, (state, reason, _) in known.items() if state != "True" and kind != "Ready"
    ]
    failing = [one for one in failing if not one.startswith(("Suspended", "Paused"))]
    return False, f"{name} waits for {', '.join(failing) or 'the operator'}"
