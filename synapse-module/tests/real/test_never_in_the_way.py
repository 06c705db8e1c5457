"""The same request to a homeserver with the module and to one without it: the answer is the same, and so is the room,
apart from the bots. Requests that nothing would come of are among them."""

from __future__ import annotations

import functools
import json
import random
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .servers import ADMIN, AUDIT, ENCRYPTION, MODULE, Person, Room, Server

WITH, WITHOUT = Server("module-with", "a.internal"), Server("module-none", "b.internal")
ME, FRIEND = "<me>", "<friend>"
BOTS = [f"@{AUDIT}:<server>", f"@{ADMIN}:<server>"]
LEVELS, MEMBER = "m.room.power_levels", "m.room.member"
FUNCTIONAL_MEMBERS = "io.element.functional_members"
POWER = "power_level_content_override"
# Before and after creators got power of their own.
VERSIONS = ("11", "12")

REQUESTS: list[Any] = [
    {},
    {"preset": "public_chat", "visibility": "public", "name": "n", "topic": "t", "room_alias_name": "<unique>"},
    {"preset": "trusted_private_chat", "is_direct": True, "invite": [FRIEND], "initial_state": [ENCRYPTION]},
    {"preset": "trusted_private_chat", "invite": [FRIEND], "creation_content": {"additional_creators": ["@c:x"]}},
    {"preset": "trusted_private_chat"},
    {"creation_content": {"type": "m.space", "m.federate": False}, POWER: {"events_default": 100}},
    {"invite": [FRIEND, FRIEND]},
    {"invite": [ME]},
    {"invite": [BOTS[0]]},
    {"invite": ["nobody"]},
    {"invite": "x"},
    {"invite": None},
    {"invite_3pid": [{}]},
    {"preset": "unknown"},
    {"preset": None},
    {"is_direct": 1.5},
    {"is_direct": "yes"},
    {"is_direct": {}},
    {"room_version": "13"},
    {"room_version": 12},
    {"creation_content": []},
    {"creation_content": {"additional_creators": "x"}},
    {"creation_content": {"additional_creators": [BOTS[0]]}},
    {"creation_content": {"additional_creators": [1]}, "preset": "trusted_private_chat", "invite": [FRIEND]},
    {"initial_state": {}},
    {"initial_state": [{"type": "m.room.topic"}]},
    {"initial_state": [{"type": FUNCTIONAL_MEMBERS, "content": {"service_members": 1}}], "is_direct": True},
    {"initial_state": [{"type": MEMBER, "state_key": BOTS[0], "content": {"membership": "ban"}}]},
    {"initial_state": [{"type": MEMBER, "state_key": ME, "content": {"membership": "leave"}}]},
    {POWER: "x"},
    {POWER: None},
    {POWER: []},
    {POWER: {"users": {}}},
    {POWER: {"users": {FRIEND: 100}}},
    {POWER: {"users": {ME: 100}}},
    {POWER: {"users": {ME: 100}, "invite": 100}},
    {POWER: {"users": {ME: 99}, "invite": 100}},
    {POWER: {"users": {ME: 50}, "invite": 60}},
    {POWER: {"users": {ME: 50, FRIEND: 100}, "events": {"m.room.history_visibility": 50}}},
    {POWER: {"users": {ME: 0}, "users_default": 100}},
    {POWER: {"users": {ME: "100"}}},
    {POWER: {"users": {ME: 100, "nobody": 1}}},
    {POWER: {"users_default": 100, "state_default": 100, "invite": 100}},
    {POWER: {"invite": "50"}},
    {POWER: {"state_default": 101}, "is_direct": True},
    {POWER: {"events": {FUNCTIONAL_MEMBERS: 101}}, "is_direct": True},
    {POWER: {"events": []}},
    {"initial_state": [{"type": LEVELS, "content": {"users": {ME: 100}}}]},
    {"initial_state": [{"type": LEVELS, "content": {"users": {}, "users_default": 100}}]},
    {"initial_state": [{"type": LEVELS, "content": {}}]},
    {"initial_state": [{"type": LEVELS, "content": []}]},
    {"initial_state": [{"type": LEVELS, "state_key": "x", "content": {"users": {ME: 100}}}]},
    {"initial_state": [{"type": LEVELS, "content": {"users": {f"@{n}:x": 1 for n in range(5400)} | {ME: 100}}}]},
]
# Those of which something may come, so that mixtures of them are not refused at once.
USUAL = [request for request in REQUESTS if {POWER, "initial_state", "is_direct", "creation_content"} & set(request)]


def setUpModule() -> None:
    WITHOUT.up([])
    bots = [{"userId": WITH.id(bot)} for bot in (AUDIT, ADMIN)]
    WITH.up([{"module": MODULE, "config": {"bots": bots}}])
    for server in (WITH, WITHOUT):
        server.person("friend")
        for bot in (AUDIT, ADMIN):
            server.person(bot)


def tearDownModule() -> None:
    WITH.wipe()
    WITHOUT.wipe()


class Outcome:
    """One answer and, if there is one, the room, with names that are the same on both servers."""

    def __init__(self, person: Person, request: Any, number: int) -> None:
        text = json.dumps(request).replace(ME, person.user_id).replace(FRIEND, person.server.id("friend"))
        text = text.replace("<server>", person.server.name).replace("<unique>", f"alias{number}")
        self.person = person
        self.asked = json.loads(text)
        self.status, self.answer = person.try_create(self.asked)

    def error(self) -> tuple[int, str]:
        return self.status, str(self.answer.get("errcode"))

    @functools.cached_property
    def state(self) -> list[dict[str, Any]]:
        return Room(self.person, self.answer["room_id"]).state

    def has_bots(self) -> bool:
        members = {(one["state_key"], one["content"]["membership"]) for one in self.state if one["type"] == MEMBER}
        return {(self.person.server.id(bot), "invite") for bot in (AUDIT, ADMIN)} <= members

    def without_bots(self) -> dict[str, Any]:
        """The room's state but for what concerns a bot that the client has not mentioned itself."""
        server = self.person.server
        bots = {server.id(bot) for bot in (AUDIT, ADMIN)}
        left_out = {(MEMBER, bot) for bot in bots - set(self.asked.get("invite") or [])}
        left_out |= {(FUNCTIONAL_MEMBERS, "")} - {(one["type"], "") for one in self.asked.get("initial_state", [])}
        found = {}
        for event in self.state:
            content = dict(event["content"])
            if event["type"] == LEVELS:
                users = content.get("users", {})
                content["users"] = {user: level for user, level in users.items() if user not in bots}
            if "additional_creators" in content:
                content["additional_creators"] = sorted(content["additional_creators"])
            if (event["type"], event["state_key"]) not in left_out:
                found[f"{event['type']} {event['state_key']}"] = content
        text = json.dumps(found, sort_keys=True).replace(self.answer["room_id"], "<room>")
        return dict(json.loads(text.replace(server.name, "<server>")))


class Same(unittest.TestCase):
    people: tuple[Person, Person]
    count = 0

    @classmethod
    def setUpClass(cls) -> None:
        cls.people = (WITH.person("author", free=True), WITHOUT.person("author", free=True))

    def compare(self, request: Any) -> Outcome:
        """The outcome with the module, which must be the one without."""
        Same.count += 1
        with ThreadPoolExecutor() as both:
            has, lacks = both.map(lambda person: Outcome(person, request, Same.count), self.people)
            self.assertEqual(has.error(), lacks.error(), (has.answer, lacks.answer))
            if has.status == 200:
                self.assertEqual(*both.map(Outcome.without_bots, (has, lacks)))
        return has

    def test_requests_that_are_right_wrong_and_odd(self) -> None:
        made = with_bots = 0
        for request in REQUESTS:
            for version in VERSIONS:
                with self.subTest(version=version, request=str(request)[:200]):
                    outcome = self.compare({"room_version": version, **request})
                    if outcome.status == 200:
                        made += 1
                        with_bots += outcome.has_bots()
        # Fewer would mean that these requests show little.
        self.assertGreater(made, 50)
        self.assertGreater(with_bots, made * 0.75)

    def test_any_mixture_of_them(self) -> None:
        """The same mixtures in each run."""
        chance = random.Random(7)
        for _ in range(20):
            mixture: dict[str, Any] = {}
            for request in chance.sample(USUAL, 3):
                mixture.update(request)
            mixture["room_version"] = chance.choice(VERSIONS)
            with self.subTest(request=str(mixture)[:300]):
                self.compare(mixture)


if __name__ == "__main__":
    unittest.main()
