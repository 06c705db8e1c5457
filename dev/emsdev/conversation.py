"""Two people who talk: the same scene for the demo and for whoever wants something to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .base import note, step
from .matrix_client import MatrixClient
from .service_common import kept_secret
from .synapse import Synapse

PEOPLE = ("alice", "bob")


@dataclass(frozen=True)
class Room:
    title: str
    id: str
    message: str
    """What somebody says there; unique, so that it can be searched for."""


def _text(value: object, key: str) -> str:
    assert isinstance(value, dict)
    return str(value[key])


def talk(client: MatrixClient, homeserver: Synapse, bots: list[str], marker: str) -> list[Room]:
    """Alice and Bob talk in a public room, an encrypted room and an encrypted direct chat that all the bots are in.

    Returns the rooms with one message each. `marker` makes the messages of this run distinguishable.
    """
    for person in PEOPLE:
        user, password, _ = homeserver.register_user(person)
        phrase = kept_secret(homeserver.folder / f"phrase-{person}")
        url = homeserver.host_public_url
        client.call("signIn", user=person, password=password, phrase=phrase, homeserver=url)
        note(f"{user} signed in with matrix-js-sdk at the public URL")
    alice, bob = PEOPLE
    bob_id = f"@{bob}:{homeserver.options.server_name}"
    wishes: list[tuple[str, dict[str, Any], str]] = [
        ("public room", {"name": "Town square", "preset": "public_chat"}, "the market opens at nine"),
        ("encrypted room", {"name": "Board", "encrypted": True, "invite": [bob_id]}, "the merger is off"),
        (
            "encrypted direct chat",
            {"encrypted": True, "isDirect": True, "invite": [bob_id], "preset": "trusted_private_chat"},
            "lunch at noon",
        ),
    ]
    rooms: list[Room] = []
    for title, options, words in wishes:
        with step(f"a {title}"):
            room = _text(client.call("createRoom", user=alice, **options), "room")
            client.call("join", user=bob, room=room)
            for bot in bots:
                client.call("waitForMember", user=alice, room=room, target=bot, membership="join", timeout=90)
            body = f"{words} {marker}"
            event = _text(client.call("send", user=alice, room=room, body=body), "event")
            client.call("waitForEvent", user=bob, room=room, event=event)
            client.call("react", user=bob, room=room, event=event, key="👍")
            client.call("reply", user=bob, room=room, event=event, body=f"understood {marker}")
            note(f"alice wrote, bob read it, reacted and answered: {body}")
            rooms.append(Room(title, room, body))
    with step("an edit and a redaction in the encrypted room"):
        board = rooms[1].id
        event = _text(client.call("send", user=bob, room=board, body=f"sell everything {marker}"), "event")
        client.call("edit", user=bob, room=board, event=event, body=f"sell nothing {marker}")
        client.call("redact", user=bob, room=board, event=event, reason="second thoughts")
    return rooms
