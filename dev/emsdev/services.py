"""The test services on the command line. With JSON, standard output holds that alone; progress goes to stderr."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import postgres
from .base import StepError, note
from .node import client_argv
from .synapse import Synapse, all_names

Command = Callable[[argparse.Namespace], object]
DEMO = "demo"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add our commands. Each parser's default `action` takes the parsed arguments."""
    services = _group(subparsers, "services", "Postgres and the demo homeserver together")
    _command(services, "up", _services_up, "start Postgres and the demo homeserver")
    _command(services, "down", _services_down, "stop Postgres and every homeserver; their data stay")
    _command(services, "status", _services_status, "what runs")

    client = subparsers.add_parser("client", help="a Matrix client that is not ours: JSON lines on stdin and stdout")
    client.add_argument("--build", action="store_true", help="only build it, and print the command that starts it")
    client.set_defaults(action=main_client)

    synapse = _group(subparsers, "synapse", "test homeservers")
    up = _named(synapse, "up", _synapse_up, "start one (made if new); options that are not given stay as they were")
    up.add_argument("--server-name", help="the name in user ids (default NAME.internal); only for a new one")
    up.add_argument("--database", choices=["postgres", "sqlite"], help="only for a new one")
    up.add_argument("--limits", choices=["default", "off"], help="Synapse's own rate limits, or none")
    up.add_argument("--password-login", choices=["yes", "no"])
    up.add_argument(
        "--federates", action="store_true", help="with others of this machine, under an address as its name; only new ones"
    )
    up.add_argument("--extra", metavar="FILE", help="a JSON object merged into the configuration; - is stdin")
    up.add_argument("--restart", action="store_true")
    _named(synapse, "down", lambda a: _existing(a).down(), "stop one; its data stay")
    _named(synapse, "wipe", lambda a: Synapse(a.name).wipe(), "stop one and delete its data")
    _named(synapse, "status", lambda a: _existing(a).env(), "its addresses and secrets")
    _command(synapse, "list", lambda a: [Synapse(name).env() for name in all_names()], "all that exist")
    _named(
        synapse,
        "admin-token",
        lambda a: {"access_token": _existing(a).admin_access_token()},
        "a server admin's access token",
    )
    user = _named(synapse, "register", _synapse_register, "make a user, or find the one made before")
    user.add_argument("user", help="localpart")
    user.add_argument("--admin", action="store_true", help="make it a server admin")
    user.add_argument("--limited", action="store_true", help="leave the server's rate limits on this user")
    device = _named(synapse, "new-device", lambda a: _existing(a).new_device(a.user), "a further session of a user")
    device.add_argument("user", help="localpart")

    database = _group(subparsers, "postgres", "the test database server")
    _command(database, "up", _postgres_up, "start it")
    _command(database, "down", lambda a: postgres.down(), "stop it; its data stay")
    _command(database, "status", lambda a: postgres.status(), "whether it runs")
    url = _command(
        database, "admin-url", _postgres_admin_url, "the superuser's URL as plain text; with --json as {url}"
    )
    url.set_defaults(plain="url")
    _command(
        database,
        "test-environment",
        lambda a: {"exports": "\n".join(f"export {k}={v}" for k, v in postgres.test_environment().items())},
        'what the integration tests want to know: eval "$(dev/run postgres test-environment)"',
    ).set_defaults(plain="exports")
    _named(
        database,
        "tenant",
        lambda a: postgres.create_tenant_database(a.name).as_json(),
        "a database whose owner may create roles",
    )
    _named(
        database,
        "limited",
        lambda a: postgres.create_limited_database(a.name).as_json(),
        "a database whose owner may not create roles",
    )
    _named(database, "role", _postgres_role, "a role that may only log in")
    bouncer = _named(database, "pgbouncer", _postgres_bouncer, "a database behind PgBouncer (transaction pooling)")
    bouncer.add_argument("--limited", action="store_true", help="its owner may not create roles")
    _named(database, "drop", lambda a: postgres.drop_database(a.name), "drop a database and its owner")


def _group(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return subparsers.add_parser(name, help=text).add_subparsers(required=True, metavar="COMMAND")


def _command(
    group: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="one JSON value on stdout, progress on stderr")
    parser.set_defaults(action=lambda arguments: _show(command, arguments), plain=None)
    return parser


def _named(
    group: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = _command(group, name, command, text)
    parser.add_argument("name")
    return parser


def _show(command: Command, arguments: argparse.Namespace) -> None:
    if not arguments.json and arguments.plain is None:
        result = command(arguments)
        if result is not None:
            print(json.dumps(_without_secrets(result), indent=1))
        return
    with contextlib.redirect_stdout(sys.stderr):
        result = command(arguments)
    if arguments.json:
        print(json.dumps({} if result is None else result))
    elif isinstance(result, dict):
        print(result[arguments.plain])


_SECRETS = {"password", "access_token", "registration_shared_secret", "secret", "host_url", "pod_url"}


def _without_secrets(value: object) -> object:
    """For a person's terminal. A program asks with --json and gets everything."""
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    if isinstance(value, dict):
        return {k: "[hidden: use --json]" if k in _SECRETS else _without_secrets(v) for k, v in value.items()}
    return value


def _existing(arguments: argparse.Namespace) -> Synapse:
    synapse = Synapse(arguments.name)
    if not synapse.exists():
        raise StepError(
            f"there is no homeserver {arguments.name}",
            f"there are: {', '.join(all_names()) or 'none'}",
            f"dev/run synapse up {arguments.name}",
        )
    return synapse


def _services_up(arguments: argparse.Namespace) -> object:
    postgres.up()
    demo = Synapse(DEMO)
    demo.up()
    return {"postgres": postgres.status(), "synapse": [demo.env()]}


def _services_down(arguments: argparse.Namespace) -> None:
    for name in all_names():
        Synapse(name).down()
    postgres.down()
    note("Postgres and the homeservers are stopped; their data stay")


def _services_status(arguments: argparse.Namespace) -> object:
    return {"postgres": postgres.status(), "synapse": [Synapse(name).env() for name in all_names()]}


def main_client(arguments: argparse.Namespace) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        argv = client_argv()
    if arguments.build:
        print(json.dumps(argv))
        return
    sys.stdout.flush()
    os.execv(argv[0], argv)


def _synapse_up(arguments: argparse.Namespace) -> object:
    extra = None
    if arguments.extra:
        text = sys.stdin.read() if arguments.extra == "-" else Path(arguments.extra).read_text()
        try:
            extra = json.loads(text)
        except ValueError as error:
            raise StepError(f"--extra {arguments.extra} is not JSON", str(error), "give one JSON object") from error
        if not isinstance(extra, dict):
            raise StepError(f"--extra {arguments.extra} is not a JSON object", "", "give one JSON object")
    synapse = Synapse(arguments.name, arguments.server_name)
    synapse.up(
        database=arguments.database,
        extra=extra,
        restart=arguments.restart,
        federates=arguments.federates,
        limits=None if arguments.limits is None else arguments.limits == "default",
        password_login=None if arguments.password_login is None else arguments.password_login == "yes",
    )
    return synapse.env()


def _synapse_register(arguments: argparse.Namespace) -> object:
    return _existing(arguments).account(arguments.user, arguments.admin, comfortable=not arguments.limited)


def _postgres_role(arguments: argparse.Namespace) -> object:
    postgres.up()
    return {"name": arguments.name, "password": postgres.create_role(arguments.name)}


def _postgres_bouncer(arguments: argparse.Namespace) -> object:
    make = postgres.create_limited_database if arguments.limited else postgres.create_tenant_database
    return postgres.pgbouncer_up(make(arguments.name)).as_json()


def _postgres_up(arguments: argparse.Namespace) -> object:
    postgres.up()
    return postgres.status()


def _postgres_admin_url(arguments: argparse.Namespace) -> object:
    postgres.up()
    return {"url": postgres.admin_url()}
