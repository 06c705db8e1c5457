"""`make check` and `make test`: what has to pass before a change is taken."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from . import binaries, cleanup, cluster, installation, module, postgres, prepare, product, rustdoc
from .base import REPO, StepError, note, sh, step
from .layout import AUDIT_LOG

_GENERATED = {"crds": ("crds",)}


def check() -> None:
    """The fast loop. Needs a Postgres (started here) and helm, no cluster."""
    started = time.monotonic()
    with step("check"):
        product.cargo("format", "fmt", "--all", "--check")
        _check_commit_hygiene()
        module.rules()
        # "Tests" are those that a plain `cargo test` runs, and the end-to-end tests are none of them.
        targets = ("--lib", "--bins", "--tests", "--benches", "--test", "e2e")
        product.cargo("build and lints", "build", "--locked", "--quiet", *targets)
        rustdoc.document()
        postgres.up()
        # Most of what these tests do is to wait.
        threads = str(2 * (os.cpu_count() or 1))
        tools = {"HELM": str(binaries.helm() / "helm"), "RUST_TEST_THREADS": threads, **postgres.test_environment()}
        # The unit tests, the import rules, and the integration tests, which compare the generated files too.
        product.cargo("unit and integration tests", "test", "--locked", "--quiet", env=tools)
    note(f"check took {time.monotonic() - started:.0f} s")


def _check_commit_hygiene() -> None:
    """Nothing that belongs to the cache or to one machine is in the checkout."""
    with step("no build products in the checkout"):
        tracked = sh(["git", "ls-files"], cwd=REPO).splitlines()
        wrong = [
            name for name in tracked if "node_modules/" in name or "__pycache__/" in name or name.startswith(".dev/")
        ]
        if wrong:
            raise StepError("build products are tracked", "\n".join(wrong), "git rm --cached them")


def test() -> None:
    """The fast loop, then everything on a real cluster. What was not running before is removed afterwards."""
    started = time.monotonic()
    was_up = cluster.kubeconfig_path().exists() and cluster.status().healthy
    demo_runs = was_up and product.installed()
    if demo_runs:
        note("a cluster with ems-bots is up: its cluster is shared, and its operator becomes that of this checkout")
    with step("test"):
        with prepare.beside():
            check()
        module.run()
        try:
            end_to_end()
        except StepError:
            note("what the tests started is left running for you to look at; `make down` removes it")
            raise
        if not was_up:
            _demonstrate()
    note(f"test took {time.monotonic() - started:.0f} s")


def _demonstrate() -> None:
    """The demo itself, again after a sudden end of the cluster, and that nothing is left of it afterwards."""
    from . import demo

    with step("the demo, and again after the cluster's sudden end"):
        demo.run()
        cleanup.kill_suddenly()
        demo.run()
        look = 'source .dev/env; ems-bots audit search merger --schema auditbot; echo "$METRICS_URLS"'
        seen = sh(["bash", "-euc", look], cwd=REPO)
        if "merger" not in seen or "/metrics" not in seen:
            raise StepError(".dev/env does not lead to the demo", seen, "see dev/emsdev/demo.py")
    demo.down()
    if left := cleanup.leftovers():
        raise StepError("`down` leaves something behind", "\n".join(left), "see dev/emsdev/cleanup.py")


# Tests that measure time, or take operator or console away from all others.
_ALONE = (
    "coverage::a_new_room_",
    "install::",
    "intake::fail::without_a_console_",
    "intake::replaced::",
    "tenants::an_operator_",
)


def end_to_end(filters: Sequence[str] = ()) -> None:
    """Tests of tests/e2e whose names contain one of `filters` (all of them if there is none), against this checkout's
    operator. Brings up what they need and leaves it running."""
    name = installation.bring_up()
    postgres.up()
    environment = {
        "KUBECONFIG": str(cluster.kubeconfig_path()),
        "PATH": f"{binaries.tools()}:{os.environ['PATH']}",
        "HELM": str(binaries.helm() / "helm"),
        "EMS_TEST_AUDIT_LOG": str(AUDIT_LOG),
        "EMS_TEST_IMAGE": name,
        "EMS_TEST_SYSTEM_NAMESPACE": product.SYSTEM_NAMESPACE,
        # What failed is in the words of the assertion; the frames of the runtime would push them out of a log's end.
        "RUST_BACKTRACE": "0",
        **postgres.test_environment(),
    }

    def run(title: str, *options: str) -> None:
        product.cargo(title, "test", "--locked", "--test", "e2e", "--", *options, env=environment)

    if filters:
        run("tests/e2e by name", "--nocapture", "--test-threads", "1", *filters)
        return
    # Most of the time they wait for pods: three of them share two cores well.
    run("tests/e2e, three at a time", "--test-threads", "3", *(word for name in _ALONE for word in ("--skip", name)))
    run("tests/e2e, one at a time", "--nocapture", "--test-threads", "1", *_ALONE)


def failpoints() -> None:
    """The integration tests that have a worker die at some places, at all of them."""
    postgres.up()
    environment = {"EMS_TEST_EVERY_FAILPOINT": "1", **postgres.test_environment()}
    options = ("--nocapture", "worker_failpoints::", "worker_closing::")
    product.cargo("every failpoint", "test", "--locked", "--test", "integration", "--", *options, env=environment)


def outage(minutes: int) -> None:
    """The worker of tests/e2e/faults_outage.rs without its database for so long; no cluster."""
    prepare.everything()
    postgres.up()
    environment = {"EMS_TEST_OUTAGE_MINUTES": str(minutes), **postgres.test_environment()}
    options = ("--nocapture", "faults_outage::")
    # Twice the outage, for the trail catches up afterwards, and an hour to build.
    timeout = 3600 + 120 * minutes
    product.cargo("outage", "test", "--locked", "--test", "e2e", "--", *options, env=environment, timeout=timeout)


def figures(part: str, filters: Sequence[str] = ()) -> None:
    """The figures of capture, or of coverage: one worker as a process of this machine, with a Synapse and a Postgres;
    no cluster. The worker is that of the release profile, unless EMS_TEST_BINARY names another."""
    prepare.everything()
    postgres.up()
    binary = os.environ.get("EMS_TEST_BINARY")
    if binary is None:
        # Not linted: how large a future is, for example, is another matter when it is optimised.
        plain = {"RUSTC_WORKSPACE_WRAPPER": ""}
        product.cargo("release build", "build", "--locked", "--quiet", "--release", "--bin", "ems-bots", env=plain)
        binary = str(product.binary().parent.parent / "release" / "ems-bots")
    environment = {"EMS_TEST_BINARY": binary, **postgres.test_environment()}
    names = [f"figures::{part}::{name}" for name in filters] or [f"figures::{part}::"]
    options = ("--ignored", "--nocapture", "--test-threads", "1", *names)
    product.cargo("figures", "test", "--locked", "--test", "e2e", "--", *options, env=environment, timeout=7200)


def generate(only_check: bool) -> None:
    """Write crds/, or say what is not up to date."""
    binary = product.build()
    with step("generated files"):
        for kind, name in (("AdminBot", "adminbots"), ("AuditBot", "auditbots")):
            file = REPO / "crds" / f"{name}.yaml"
            text = sh([binary, "crds", "--kind", kind])
            if file.exists() and file.read_text() == text:
                continue
            if only_check:
                raise StepError(f"{file.relative_to(REPO)} is not up to date", "", "run `make generate`")
            file.write_text(text)
            note(f"wrote {file.relative_to(REPO)}")
