"""What the module is for: a bot that comes later reads what was said before, where clients share keys with those who
are invited. With a client that is not ours."""

from __future__ import annotations

import unittest

from emsdev.matrix_client import MatrixClient

from .servers import AUDIT, MODULE, Server

server = Server("module-keys", "keys.internal")
SHARED_WITH_INVITED = {"world_readable": True, "shared": True, "invited": True, "joined": False}


def setUpModule() -> None:
    server.up([{"module": MODULE, "config": {"bots": [{"userId": server.id(AUDIT)}]}}])


def tearDownModule() -> None:
    server.wipe()


class Keys(unittest.TestCase):
    def test_a_message_from_before_the_bot_came_in(self) -> None:
        with MatrixClient() as client:
            for name in (AUDIT, "alice"):
                account = server.synapse.account(name)
                url = server.synapse.host_public_url
                client.call("login", user=name, password=account["password"], homeserver=url)
            for visibility, readable in SHARED_WITH_INVITED.items():
                with self.subTest(visibility):
                    self.assertEqual(self.is_read(client, visibility), readable)

    def is_read(self, client: MatrixClient, visibility: str) -> bool:
        history = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}, "state_key": ""}
        room = client.call("createRoom", user="alice", encrypted=True, initialState=[history])
        assert isinstance(room, dict)
        # At once: a client that knows that the room is encrypted knows that the bot is invited.
        client.call("send", user="alice", room=room["room"], body="before")
        client.call("join", user=AUDIT, room=room["room"])
        # What is sent now is read in any case; by then what came before has been decrypted or never will be.
        client.call("waitForMember", user="alice", room=room["room"], target=server.id(AUDIT), membership="join")
        after = client.call("send", user="alice", room=room["room"], body="after")
        assert isinstance(after, dict)
        client.call("waitForEvent", user=AUDIT, room=room["room"], event=after["event"])
        read = client.call("readRoom", user=AUDIT, room=room["room"])
        assert isinstance(read, dict)
        return "before" in [event["body"] for event in read["events"]]


if __name__ == "__main__":
    unittest.main()
