"""What becomes of a request, and which bots belong in a room."""

from __future__ import annotations

import dataclasses
import unittest
from typing import Any

from synapse_ems_bots.creation import LeftAlone, read
from synapse_ems_bots.rules import FUNCTIONAL_MEMBERS, newcomers

from .support import (
    ADMIN,
    ALICE,
    AUDIT,
    BOB,
    BOTS,
    FACTS,
    PROFILES,
    changed,
    event,
    invitations,
    is_left_alone,
    is_wanted,
)

OLD = ("10", "11")
POWER = "power_level_content_override"
BOTS_POWER = {AUDIT: 100, ADMIN: 100}
TRUSTED = {"preset": "trusted_private_chat", "invite": [BOB]}
DIRECT = {"is_direct": True, "invite": [BOB]}


class Invitations(unittest.TestCase):
    def test_they_come_after_what_the_client_sends(self) -> None:
        topic = event("m.room.topic", {"topic": "t"})
        for version in (*OLD, "12"):
            with self.subTest(version):
                request = {"room_version": version, "invite": [BOB], "initial_state": [topic], "name": "n", "x": [1]}
                found = changed(request)
                self.assertEqual(found["initial_state"][0], topic)
                self.assertEqual(
                    invitations(found),
                    {AUDIT: {"membership": "invite", **PROFILES[AUDIT]}, ADMIN: {"membership": "invite"}},
                )
                same = ("room_version", "invite", "name", "x")
                self.assertEqual({key: found[key] for key in same}, {key: request[key] for key in same})

    def test_whom_the_client_invites_is_invited_once(self) -> None:
        request = changed({"invite": [ADMIN, BOB]})
        self.assertEqual(request["invite"], [ADMIN, BOB])
        self.assertEqual(list(invitations(request)), [AUDIT])
        self.assertEqual(request[POWER]["users"], BOTS_POWER)
        self.assertEqual(newcomers(read({"invite": [ADMIN]}, ALICE, FACTS), BOTS), [AUDIT])

    def test_nothing_changes_without_bots(self) -> None:
        request = {"invite": [BOB], "preset": "trusted_private_chat", "is_direct": True}
        self.assertEqual(changed(request, bots=[]), request)


class Power(unittest.TestCase):
    def users(self, request: dict[str, Any]) -> object:
        return changed(request)[POWER]["users"]

    def test_up_to_11_the_creator_keeps_its_own(self) -> None:
        for version in OLD:
            self.assertEqual(self.users({"room_version": version}), {ALICE: 100, **BOTS_POWER})

    def test_in_12_the_creator_must_not_be_named(self) -> None:
        self.assertEqual(self.users({"room_version": "12"}), BOTS_POWER)
        self.assertEqual(self.users({}), BOTS_POWER, "the homeserver's default version")

    def test_the_client_s_levels_are_kept(self) -> None:
        mine = {"users": {ALICE: 100, BOB: 75}, "events": {"m.room.name": 0}, "invite": 60, "x": "y"}
        power = changed({"room_version": "11", POWER: mine})[POWER]
        self.assertEqual(power, {**mine, "users": {ALICE: 100, BOB: 75, **BOTS_POWER}})

    def test_a_bot_s_level_is_raised_and_never_lowered(self) -> None:
        mine = {"users": {ALICE: 200, AUDIT: 150, ADMIN: 20}}
        users = self.users({"room_version": "11", POWER: mine})
        self.assertEqual(users, {ALICE: 200, AUDIT: 150, ADMIN: 100})

    def test_who_has_it_already_is_not_written_again(self) -> None:
        request = {
            "room_version": "11",
            "invite": BOTS,
            "is_direct": True,
            POWER: {"users": {ALICE: 100, **BOTS_POWER}},
        }
        self.assertEqual(changed(request), request)

    def test_levels_of_the_configuration_are_kept(self) -> None:
        facts = dataclasses.replace(FACTS, preset_levels={"private_chat": {"users": {BOB: 50}, "invite": 10}})
        self.assertEqual(changed({}, facts=facts)[POWER], {"users": {BOB: 50, **BOTS_POWER}})
        self.assertTrue(is_left_alone({"room_version": "11"}, facts=facts), "Synapse would miss the creator")
        self.assertEqual(changed({"preset": "public_chat"}, facts=facts)[POWER], {"users": BOTS_POWER})

    def test_the_power_levels_event_of_the_client_counts_instead(self) -> None:
        events = [
            event("m.room.power_levels", {"users": {BOB: 1}}),
            event("m.room.topic", {"topic": "t"}),
            event("m.room.power_levels", {"users": {ALICE: 100}, "ban": 7}, key=None),
        ]
        request = changed({"room_version": "11", "initial_state": events, POWER: {"users": {}}})
        self.assertEqual(request[POWER], {"users": {}}, "it has no effect, so it is not touched")
        self.assertEqual(request["initial_state"][:2], events[:2])
        self.assertEqual(list(invitations(request)), BOTS)
        last = request["initial_state"][2]
        self.assertEqual(last["content"], {"users": {ALICE: 100, **BOTS_POWER}, "ban": 7})

    def test_a_power_levels_event_with_a_state_key_is_another_one(self) -> None:
        other = event("m.room.power_levels", {}, key="x")
        request = changed({"room_version": "11", "initial_state": [other]})
        self.assertEqual(request["initial_state"][0], other)
        self.assertEqual(request[POWER]["users"], {ALICE: 100, **BOTS_POWER})


class Creators(unittest.TestCase):
    def test_who_cannot_invite_is_left_alone(self) -> None:
        low = {"users": {ALICE: 40}, "invite": 50}
        self.assertTrue(is_left_alone({"room_version": "11", POWER: low}))
        self.assertFalse(is_left_alone({"room_version": "11", POWER: {**low, "invite": 40}}))
        public = {"room_version": "11", "visibility": "public", POWER: {"users": {ALICE: 40}}}
        self.assertTrue(is_left_alone(public), "public rooms ask for 50")
        self.assertFalse(is_left_alone({**public, "visibility": "private"}), "private rooms ask for nothing")
        own = [event("m.room.power_levels", {"users": {BOB: 100}, "invite": 1})]
        self.assertTrue(is_left_alone({"room_version": "11", "initial_state": own}))
        own = [event("m.room.power_levels", {"users": {ALICE: 10}})]
        self.assertFalse(is_left_alone({"room_version": "11", "initial_state": own}), "without a level it is 0")
        self.assertFalse(is_left_alone({"room_version": "12", POWER: {"users": {}, "invite": 90}}))

    def test_who_may_have_left_is_left_alone(self) -> None:
        self.assertTrue(is_left_alone({"initial_state": [event("m.room.member", {"membership": "leave"}, key=ALICE)]}))
        self.assertFalse(is_left_alone({"initial_state": [event("m.room.member", {"membership": "ban"}, key=BOB)]}))

    def test_up_to_11_the_client_must_name_the_creator(self) -> None:
        self.assertTrue(is_left_alone({"room_version": "11", POWER: {"users": {BOB: 100}, "users_default": 100}}))

    def test_in_12_creators_are_not_named(self) -> None:
        request = {"creation_content": {"additional_creators": [AUDIT]}}
        self.assertEqual(changed(request)[POWER]["users"], {ADMIN: 100})

    def test_up_to_11_invited_to_a_trusted_chat_means_power(self) -> None:
        request = changed({"room_version": "11", "preset": "trusted_private_chat", "invite": [BOB]})
        self.assertEqual(request[POWER]["users"], {ALICE: 100, BOB: 100, **BOTS_POWER})


class TrustedChatsOf12(unittest.TestCase):
    """Synapse makes whoever is in `invite` one of their creators."""

    def test_the_bots_do_not_become_creators(self) -> None:
        request = changed(TRUSTED)
        self.assertEqual({key: request[key] for key in TRUSTED}, TRUSTED)
        self.assertEqual(list(invitations(request)), BOTS)
        self.assertEqual(request[POWER]["users"], BOTS_POWER)

    def test_a_bot_that_the_client_invites_does_and_is_not_named(self) -> None:
        request = changed({**TRUSTED, "invite": [AUDIT]})
        self.assertEqual(request[POWER]["users"], {ADMIN: 100})
        self.assertEqual(changed({**TRUSTED, "invite": [AUDIT], "room_version": "11"})[POWER]["users"][AUDIT], 100)


class DirectChats(unittest.TestCase):
    def members(self, **request: Any) -> object:
        state = changed({"is_direct": True, "invite": [BOB], **request}).get("initial_state", [])
        found = [one["content"] for one in state if one["type"] == FUNCTIONAL_MEMBERS]
        return found[-1] if found else None

    def test_the_bots_do_not_count_as_people(self) -> None:
        encryption = event("m.room.encryption", {"algorithm": "a"})
        request = changed({"is_direct": True, "invite": [BOB], "initial_state": [encryption]})
        functional = event(FUNCTIONAL_MEMBERS, {"service_members": BOTS})
        self.assertEqual(request["initial_state"][:2], [encryption, functional])
        kinds = [one["type"] for one in changed({"invite": [BOB]})["initial_state"]]
        self.assertNotIn(FUNCTIONAL_MEMBERS, kinds, "only in direct chats")

    def test_what_the_client_lists_is_kept(self) -> None:
        mine = event(FUNCTIONAL_MEMBERS, {"service_members": ["@helper:x", AUDIT], "x": 1})
        self.assertEqual(self.members(initial_state=[mine]), {"service_members": ["@helper:x", AUDIT, ADMIN], "x": 1})
        for broken in ({"service_members": "x"}, "x", None):
            self.assertEqual(self.members(initial_state=[event(FUNCTIONAL_MEMBERS, broken)]), broken)

    def test_a_bot_that_the_client_talks_to_is_no_service(self) -> None:
        self.assertEqual(self.members(invite=[ADMIN]), {"service_members": [AUDIT]})

    def test_a_creator_who_may_not_write_it_does_not(self) -> None:
        for levels in ({"state_default": 101}, {"events": {FUNCTIONAL_MEMBERS: 101}}):
            self.assertIsNone(self.members(room_version="11", power_level_content_override=levels))
            self.assertIsNotNone(self.members(room_version="12", power_level_content_override=levels))


class Selection(unittest.TestCase):
    def test_everything_by_default(self) -> None:
        requests: list[dict[str, Any]] = [{}, DIRECT, {"creation_content": {"type": "m.space"}}]
        for request in requests:
            self.assertTrue(is_wanted(request, {}))

    def test_not_the_bot_s_own_rooms(self) -> None:
        self.assertFalse(is_wanted({}, {}, creator=AUDIT))
        self.assertTrue(is_wanted({}, {}, creator=ADMIN))

    def test_a_bot_whose_membership_the_client_sends(self) -> None:
        banned = event("m.room.member", {"membership": "ban"}, key=AUDIT)
        self.assertFalse(is_wanted({"initial_state": [banned]}, {}))
        self.assertTrue(is_wanted({"initial_state": [{**banned, "state_key": ADMIN}]}, {}))

    def test_direct_chats(self) -> None:
        self.assertFalse(is_wanted(DIRECT, {"directMessages": False}))
        self.assertTrue(is_wanted({"invite": [BOB]}, {"directMessages": False}))

    def test_people_whose_direct_chats_are_left_out(self) -> None:
        for excluded in (ALICE, BOB):
            self.assertFalse(is_wanted(DIRECT, {"excludeUsers": [excluded]}))
            self.assertTrue(is_wanted({"invite": [BOB]}, {"excludeUsers": [excluded]}), "no direct chat")
        self.assertTrue(is_wanted(DIRECT, {"excludeUsers": ["@carol:example.org"]}))

    def test_an_address_may_be_theirs(self) -> None:
        request = {"is_direct": True, "invite_3pid": [{}]}
        self.assertFalse(is_wanted(request, {"excludeUsers": [BOB]}))
        self.assertTrue(is_wanted(request, {}))

    def test_rooms_in_spaces_where_some_are_left_out(self) -> None:
        request = {"initial_state": [event("m.space.parent", {"via": ["x"]}, key="!any:x")]}
        self.assertFalse(is_wanted(request, {"excludeSpaces": ["!council:x"]}))
        self.assertTrue(is_wanted(request, {}))
        self.assertTrue(is_wanted({}, {"excludeSpaces": ["!council:x"]}))

    def test_creators(self) -> None:
        self.assertTrue(is_wanted({}, {"creatorPattern": "lice:"}), "a part of it suffices")
        self.assertFalse(is_wanted({}, {"creatorPattern": "^@staff_"}))

    def test_rooms_by_name_are_never_new(self) -> None:
        self.assertFalse(is_wanted({}, {"only": ["!a:x"]}))
        self.assertTrue(is_wanted({}, {"only": []}))
        self.assertTrue(is_wanted({}, {"deny": ["!a:x"], "localOnly": False, "minimumLastActive": "1d", "notice": "n"}))


class Large(unittest.TestCase):
    def test_power_levels_near_the_limit_of_an_event_are_left_alone(self) -> None:
        crowd = {f"@user{number}:example.org": 1 for number in range(1500)}
        self.assertTrue(is_left_alone({POWER: {"users": crowd}}))
        self.assertTrue(is_left_alone({"initial_state": [event("m.room.power_levels", {"users": crowd})]}))
        direct = event(FUNCTIONAL_MEMBERS, {"service_members": list(crowd)})
        self.assertTrue(is_left_alone({"is_direct": True, "initial_state": [direct]}))

    def test_why_is_said_without_words_of_the_user(self) -> None:
        with self.assertRaises(LeftAlone) as caught:
            read({"room_version": "secret"}, ALICE, FACTS)
        self.assertNotIn("secret", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
