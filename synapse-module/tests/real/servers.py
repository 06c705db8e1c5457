"""Homeservers of the project's own tools, people on them, and rooms as they turned out."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from emsdev.synapse import Synapse
from emsdev.synapse_admin import http_json

MODULE = "synapse_ems_bots.module.EmsBots"
AUDIT, ADMIN, LATER = "auditbot", "adminbot", "laterbot"
VERSIONS = ("10", "11", "12")
ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
_numbers = itertools.count(1)


class Server:
    """One homeserver with Synapse's own limits, new each time."""

    def __init__(self, name: str, server_name: str) -> None:
        self.name = server_name
        self.url = ""
        self.synapse = Synapse(name, server_name)
        self.synapse.wipe()

    def up(self, modules: list[dict[str, Any]], **configuration: Any) -> None:
        self.synapse.up(database="sqlite", limits=True, extra={"modules": modules, **configuration})
        self.url = self.synapse.host_internal_url

    def wipe(self) -> None:
        self.synapse.wipe()

    def id(self, localpart: str) -> str:
        return f"@{localpart}:{self.name}"

    def person(self, name: str = "", free: bool = False) -> Person:
        """An account; `free` from limits if asked."""
        account = self.synapse.account(name or f"person{next(_numbers)}", comfortable=free)
        return Person(self, account["user_id"], account["access_token"])

    def account(self, localpart: str, changes: Mapping[str, object]) -> None:
        """Change an account as the server's admin."""
        self.synapse.api("PUT", f"/_synapse/admin/v2/users/{quote(self.id(localpart))}", changes)


class Person:
    """Somebody with a token."""

    def __init__(self, server: Server, user_id: str, token: str) -> None:
        self.server, self.user_id, self.token = server, user_id, token

    def ask(self, method: str, path: str, body: object | None = None) -> tuple[int, dict[str, Any]]:
        return http_json(method, f"{self.server.url}{path}", body, self.token)

    def try_create(self, request: object) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", "/_matrix/client/v3/createRoom", request)

    def create(self, **request: Any) -> Room:
        status, answer = self.try_create(request)
        assert status == 200, (request, answer)
        return Room(self, answer["room_id"])

    def join(self, room: Room) -> int:
        return self.ask("POST", f"/_matrix/client/v3/join/{quote(room.id)}", {})[0]

    def put_state(self, room: Room, kind: str, content: object) -> int:
        return self.ask("PUT", f"/_matrix/client/v3/rooms/{quote(room.id)}/state/{kind}", content)[0]


class Room:
    """A room as it is when it is first looked at."""

    def __init__(self, creator: Person, room_id: str) -> None:
        self.creator, self.id = creator, room_id

    @functools.cached_property
    def state(self) -> list[dict[str, Any]]:
        status, answer = self.creator.ask("GET", f"/_matrix/client/v3/rooms/{quote(self.id)}/state")
        assert status == 200, answer
        return list(answer["value"])

    def content(self, kind: str, key: str = "") -> dict[str, Any]:
        """The content of a state event, `{}` if there is none."""
        found = [one["content"] for one in self.state if (one["type"], one["state_key"]) == (kind, key)]
        return dict(found[0]) if found else {}

    def members(self, membership: str = "invite") -> set[str]:
        """Localparts of the members."""
        of_members = [one for one in self.state if one["type"] == "m.room.member"]
        chosen = [one["state_key"] for one in of_members if one["content"]["membership"] == membership]
        return {member[1:].partition(":")[0] for member in chosen}

    def power(self) -> dict[str, Any]:
        return self.content("m.room.power_levels")
