"""The commands of `dev/run`. Each module that has commands adds them with a function like those below."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import bench, binaries, checks, cluster, demo, dns, fuzz, image, module, prepare, product, services
from .base import BRIDGE_IP, REPO, StepError

_TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target")
Commands = Any  # what argparse's add_subparsers returns; its type has no public name
Action = Callable[[argparse.Namespace], int | None]


def command(commands: Commands, name: str, text: str, action: Action) -> argparse.ArgumentParser:
    """Add a command; `action` gets the parsed arguments and returns an exit code, or nothing for success."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    return parser


def group(commands: Commands, name: str, text: str) -> Commands:
    """Add a command that only has commands of its own."""
    parser = commands.add_parser(name, help=text, description=text)
    return parser.add_subparsers(required=True, metavar="COMMAND")


def _cluster_up(_: argparse.Namespace) -> None:
    path = cluster.up()
    print(f"export KUBECONFIG={path}")


def _cluster_status(_: argparse.Namespace) -> int:
    status = cluster.status()
    width = max(map(len, status.parts))
    for name, words in status.parts.items():
        print(f"{name:{width}}  {words}")
    return 0 if status.healthy else 1


def _add_cluster(commands: Commands) -> None:
    own = group(commands, "cluster", "a real single-node Kubernetes on this machine")
    command(own, "up", "start it, or repair it, or find that it is up", _cluster_up)
    command(own, "down", "stop it and remove all that it left, except the build cache", lambda _: cluster.down())
    command(own, "status", "say how each part is; exit code 1 if it is not healthy", _cluster_status)
    command(own, "kubeconfig", "print the path of its kubeconfig", lambda _: print(cluster.kubeconfig_path()))
    host = command(
        own,
        "host",
        "let pods resolve NAME to an address, by default to this host",
        lambda arguments: dns.set_host(arguments.name, None if arguments.remove else arguments.ip),
    )
    host.add_argument("name")
    host.add_argument("ip", nargs="?", default=BRIDGE_IP)
    host.add_argument("--remove", action="store_true", help="take the name away again")
    flags = command(
        own,
        "apiserver-flags",
        "start the API server with these flags too, for example for an audit webhook; with none, as it was",
        lambda arguments: cluster.set_apiserver_flags(arguments.flags),
    )
    flags.add_argument("flags", nargs="*", metavar="-- --FLAG=VALUE", help="after a -- of their own")


def _add_image(commands: Commands) -> None:
    own = group(commands, "image", "the image of ems-bots, without a container engine")
    build = command(
        own,
        "build",
        "write an OCI archive with a binary and all it needs; prints the archive's path",
        lambda arguments: print(image.archive_for(arguments.binary)),
    )
    load = command(
        own,
        "import",
        "build if need be, and give it to the cluster; prints the image's name",
        lambda arguments: print(image.ensure(arguments.binary)),
    )
    for parser in (build, load):
        parser.add_argument(
            "--binary",
            type=Path,
            default=_TARGET / "release" / "ems-bots",
            help="the program to put into it (default: the release build)",
        )


def _add_tools(commands: Commands) -> None:
    command(
        commands,
        "tools",
        "build kubectl, helm and the rest if need be; prints the folder that they are in",
        lambda _: print(binaries.tools()),
    )
    command(
        commands,
        "prepare",
        "build and fetch all that does not depend on the product; needs no other command, for the others do it",
        lambda _: prepare.everything(),
    )


def _add_project(commands: Commands) -> None:
    command(commands, "demo", "bring all of it up on this machine and show what it does", lambda _: demo.run())
    command(commands, "down", "remove everything that the demo and the tests started", lambda _: demo.down())
    command(commands, "check", "format, lints, documentation, unit and integration tests", lambda _: checks.check())
    command(commands, "test", "the checks, then the end-to-end tests on a real cluster", lambda _: checks.test())
    command(commands, "binary", "build and lint ems-bots; prints where it is", lambda _: print(product.build()))
    e2e = command(
        commands,
        "e2e",
        "end-to-end tests by name on the local cluster, which stays up",
        lambda arguments: checks.end_to_end(arguments.filters),
    )
    e2e.add_argument("filters", nargs="*", metavar="NAME", help="a part of a test's name (default: all of them)")
    command(
        commands,
        "test-failpoints",
        "a worker that dies at every place of its way to a commit, one after the other",
        lambda _: checks.failpoints(),
    )
    outage = command(
        commands,
        "test-outage",
        "capture without its database for an hour, and what the trail has afterwards",
        lambda arguments: checks.outage(arguments.minutes),
    )
    outage.add_argument("--minutes", type=int, default=60)
    modules = command(commands, "module", "all checks of synapse-module/", lambda arguments: module.run(arguments.only))
    modules.add_argument("--only", default="", metavar="NAME", help="on real homeservers only tests/real/test_NAME*.py")
    generate = command(
        commands, "generate", "write the generated files", lambda arguments: checks.generate(arguments.check)
    )
    figures = command(
        commands, "bench", "the figures of docs/performance.md", lambda arguments: bench.run(arguments.idle_seconds)
    )
    figures.add_argument("--idle-seconds", type=int, default=600)
    for part in ("capture", "coverage"):
        some = command(
            commands,
            f"bench-{part}",
            f"the figures of {part} in docs/performance.md",
            lambda arguments, part=part: checks.figures(part, arguments.filters),
        )
        some.add_argument("filters", nargs="*", metavar="NAME", help="a part of a figure's name (default: all of them)")
    fuzzing = command(
        commands,
        "fuzz",
        "mutated inputs for what reads hostile ones",
        lambda arguments: fuzz.run(arguments.targets, arguments.seconds),
    )
    fuzzing.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: {', '.join(fuzz.targets())}")
    fuzzing.add_argument("--seconds", type=int, default=60, help="for each target")
    generate.add_argument("--check", action="store_true", help="write nothing; fail if one is not up to date")


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev/run", description="Development tools of ems-bots.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_project, _add_cluster, _add_image, _add_tools, services.register):
        add(commands)
    arguments = parser.parse_args()
    try:
        return arguments.action(arguments) or 0
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
