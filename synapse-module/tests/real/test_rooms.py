"""Rooms on a real homeserver with its default limits: the bots are in them when `createRoom` answers."""

from __future__ import annotations

import unittest
from typing import Any

from .servers import ADMIN, AUDIT, ENCRYPTION, LATER, MODULE, VERSIONS, Person, Room, Server

EXCLUDED, COUNCIL = "doctor", "!council:module.internal"
KINDS: dict[str, dict[str, Any]] = {
    "private": {"preset": "private_chat"},
    "encrypted": {"preset": "private_chat", "initial_state": [ENCRYPTION]},
    "public": {"preset": "public_chat", "visibility": "public"},
    "space": {
        "creation_content": {"type": "m.space"},
        "power_level_content_override": {"events_default": 100, "invite": 50},
    },
    "direct": {"preset": "trusted_private_chat", "is_direct": True, "initial_state": [ENCRYPTION]},
}
server = Server("module", "module.internal")
STATUS = "/_synapse/client/ems_bots/v1/status"


def setUpModule() -> None:
    audit = {"userId": server.id(AUDIT), "rooms": {"excludeUsers": [server.id(EXCLUDED)], "excludeSpaces": [COUNCIL]}}
    bots = [audit, {"userId": server.id(ADMIN)}, {"userId": server.id(LATER)}]
    server.up([{"module": MODULE, "config": {"bots": bots}}])
    for bot in (AUDIT, ADMIN):
        server.person(bot)


def tearDownModule() -> None:
    server.wipe()


class Kinds(unittest.TestCase):
    def test_every_kind_in_every_version(self) -> None:
        """More rooms than a bot's limit of invitations would allow (five): it is not used up."""
        for version in VERSIONS:
            alice, bob = server.person(), server.person()
            for name, request in KINDS.items():
                with self.subTest(version=version, kind=name):
                    guests = {"invite": [bob.user_id]} if name == "direct" else {}
                    room = alice.create(room_version=version, **request, **guests)
                    self.assert_bots_are_in(room, version, name, alice, bob)

    def assert_bots_are_in(self, room: Room, version: str, kind: str, alice: Person, bob: Person) -> None:
        guest = {bob.user_id[1:].partition(":")[0]} if kind == "direct" else set()
        self.assertEqual(room.members(), {AUDIT, ADMIN} | guest)
        expected = {server.id(AUDIT): 100, server.id(ADMIN): 100}
        if version != "12":
            expected[alice.user_id] = 100
            if kind == "direct":
                expected[bob.user_id] = 100
        self.assertEqual(room.power()["users"], expected)
        creators = [bob.user_id] if (version, kind) == ("12", "direct") else None
        self.assertEqual(room.content("m.room.create").get("additional_creators"), creators)

    def test_the_bots_come_in_and_are_admins(self) -> None:
        for version in VERSIONS:
            room = server.person().create(room_version=version)
            for bot in (server.person(AUDIT, free=True), server.person(ADMIN, free=True)):
                self.assertEqual(bot.join(room), 200)
                self.assertEqual(
                    bot.put_state(room, "m.room.history_visibility", {"history_visibility": "shared"}), 200
                )

    def test_a_direct_chat(self) -> None:
        """It is one with Bob: his invitation says so, and the bots' do not."""
        alice, bob = server.person(), server.person()
        room = alice.create(is_direct=True, preset="trusted_private_chat", invite=[bob.user_id])
        self.assertIs(room.content("m.room.member", bob.user_id).get("is_direct"), True)
        for bot in (AUDIT, ADMIN):
            self.assertEqual(
                room.content("m.room.member", server.id(bot)), {"membership": "invite", "displayname": bot}
            )
        members = room.content("io.element.functional_members")
        self.assertEqual(members, {"service_members": [server.id(AUDIT), server.id(ADMIN)]})

    def test_the_bot_is_told(self) -> None:
        bot, alice = server.person(AUDIT), server.person()
        before = bot.ask("GET", "/_matrix/client/v3/sync?timeout=0")[1]["next_batch"]
        room = alice.create(name="Board")
        after = bot.ask("GET", f"/_matrix/client/v3/sync?timeout=0&since={before}")[1]
        self.assertIn(room.id, after["rooms"]["invite"])

    def test_what_the_client_asks_for_is_kept(self) -> None:
        wishes = {"events": {"m.room.name": 0}, "ban": 99, "invite": 20}
        for version in VERSIONS:
            alice = server.person()
            users = {"@carol:x": 60} | ({} if version == "12" else {alice.user_id: 100})
            override = {**wishes, "users": users}
            power = alice.create(room_version=version, power_level_content_override=override).power()
            self.assertEqual({key: power[key] for key in wishes}, wishes)
            self.assertEqual(power["users"], {**users, server.id(AUDIT): 100, server.id(ADMIN): 100})

    def test_power_levels_in_the_initial_state(self) -> None:
        alice = server.person()
        levels = {"users": {alice.user_id: 100}, "ban": 99}
        event = {"type": "m.room.power_levels", "content": levels}
        room = alice.create(room_version="11", initial_state=[event])
        self.assertEqual(room.members(), {AUDIT, ADMIN})
        users = {alice.user_id: 100, server.id(AUDIT): 100, server.id(ADMIN): 100}
        self.assertEqual(room.power(), {"users": users, "ban": 99})

    def test_a_bot_that_the_client_invites(self) -> None:
        for version in VERSIONS:
            room = server.person().create(room_version=version, invite=[server.id(ADMIN)])
            self.assertEqual(room.members(), {AUDIT, ADMIN})
            self.assertEqual(room.power()["users"][server.id(ADMIN)], 100)

    def test_a_bot_that_creates_a_room(self) -> None:
        room = server.person(ADMIN, free=True).create()
        self.assertEqual((room.members("join"), room.members()), ({ADMIN}, {AUDIT}))

    def test_upgrades_do_not_come_by(self) -> None:
        """The new room has the old one's power levels and none of its invitations."""
        alice = server.person()
        old = alice.create(room_version="11")
        status, answer = alice.ask("POST", f"/_matrix/client/v3/rooms/{old.id}/upgrade", {"new_version": "12"})
        self.assertEqual(status, 200, answer)
        new = Room(alice, answer["replacement_room"])
        self.assertEqual(new.members(), set())
        self.assertEqual(new.power()["users"], {server.id(AUDIT): 100, server.id(ADMIN): 100})


class Selection(unittest.TestCase):
    def test_people_whose_direct_chats_are_left_out(self) -> None:
        alice, doctor = server.person(), server.person(EXCLUDED)
        self.assertEqual(alice.create(is_direct=True, invite=[doctor.user_id]).members(), {EXCLUDED, ADMIN})
        self.assertEqual(doctor.create(is_direct=True).members(), {ADMIN})
        self.assertEqual(doctor.create().members(), {AUDIT, ADMIN})

    def test_rooms_in_spaces(self) -> None:
        parent = {"type": "m.space.parent", "state_key": "!any:x", "content": {"via": ["x"]}}
        self.assertEqual(server.person().create(initial_state=[parent]).members(), {ADMIN})

    def test_accounts_come_and_go_without_a_restart(self) -> None:
        alice = server.person()
        self.assertEqual(alice.create().members(), {AUDIT, ADMIN})
        server.person(LATER)
        self.assertEqual(alice.create().members(), {AUDIT, ADMIN, LATER})
        server.account(LATER, {"locked": True})
        self.assertEqual(alice.create().members(), {AUDIT, ADMIN})
        server.account(LATER, {"locked": False})
        self.assertEqual(alice.create().members(), {AUDIT, ADMIN, LATER})
        server.account(LATER, {"deactivated": True})
        self.assertEqual(alice.create().members(), {AUDIT, ADMIN})


class Limits(unittest.TestCase):
    def test_guests_are_not_displaced(self) -> None:
        """Ten in one request are Synapse's default, with the module as without."""
        guests = [server.id(f"guest{number}") for number in range(11)]
        presets = ("private_chat", "trusted_private_chat")
        for version in ("11", "12"):
            alice = server.person()
            for preset in presets:
                room = alice.create(room_version=version, invite=guests[:10], preset=preset)
                self.assertEqual(len(room.members()), 12)
                self.assertEqual({room.power()["users"][server.id(bot)] for bot in (AUDIT, ADMIN)}, {100})
            status, answer = alice.try_create({"room_version": version, "invite": guests})
            self.assertEqual((status, answer["error"]), (400, "Cannot invite so many users at once"))


class Status(unittest.TestCase):
    def test_admins_see_what_is_at_work(self) -> None:
        admin = Person(server, "", server.synapse.admin_access_token())
        status, answer = admin.ask("GET", STATUS)
        self.assertEqual((status, answer["active"]), (200, True))
        self.assertRegex(answer["version"], r"^\d+\.\d+\.\d+$")
        self.assertEqual([bot["userId"] for bot in answer["bots"]], [server.id(bot) for bot in (AUDIT, ADMIN, LATER)])
        self.assertEqual(answer["bots"][0]["rooms"]["excludeSpaces"], [COUNCIL])

    def test_nobody_else_does(self) -> None:
        for person, status in (
            (server.person(), 403),
            (Person(server, "", "wrong"), 401),
            (Person(server, "", ""), 401),
        ):
            self.assertEqual(person.ask("GET", STATUS)[0], status)


if __name__ == "__main__":
    unittest.main()
