"""Requests are any JSON that somebody sends: none of them is an error, and what looks wrong stays as it came."""

from __future__ import annotations

import copy
import random
import unittest
from typing import Any

from synapse_ems_bots.config import parse
from synapse_ems_bots.creation import LeftAlone, read
from synapse_ems_bots.rules import FUNCTIONAL_MEMBERS, belongs, changes

from .support import ALICE, AUDIT, BOB, FACTS, changed, event, invitations, is_left_alone

JUNK: list[Any] = [None, True, 0, -1, 2.5, 2**70, "", "x", "100", [], [None], {}, {"a": {}}, [[]], "\ud800"]
KEYS = [
    "invite",
    "invite_3pid",
    "preset",
    "visibility",
    "room_version",
    "creation_content",
    "initial_state",
    "power_level_content_override",
    "is_direct",
]


class WrongTypes(unittest.TestCase):
    def test_each_key_with_each_type(self) -> None:
        for key in KEYS:
            for junk in JUNK:
                for version in ("11", "12"):
                    with self.subTest(key=key, junk=junk, version=version):
                        is_left_alone({"room_version": version, "is_direct": True, key: junk})

    def test_wrong_requests_are_left_alone(self) -> None:
        power = "power_level_content_override"
        requests: list[dict[str, Any]] = [
            {"invite": "x"},
            {"invite": None},
            {"invite": [BOB, 1]},
            {"invite_3pid": {}},
            {"preset": None},
            {"preset": "x"},
            {"preset": ["private_chat"]},
            {"initial_state": {}},
            {"initial_state": [1]},
            {"initial_state": [{"type": "a"}]},
            {"initial_state": [event("m.room.power_levels", [])]},
            {"creation_content": []},
            {power: "x"},
            {power: {"users": []}},
            {power: {"users": {ALICE: "100"}}},
            {power: {"users": {ALICE: True}}},
            {power: {"users": {ALICE: 100}, "invite": None}},
            {power: {"users": {ALICE: 100}, "events": {"x": 1.5}}},
        ]
        for number in ("11", "12"):
            for wrong in requests:
                with self.subTest(version=number, wrong=wrong):
                    self.assertTrue(is_left_alone({"room_version": number, **wrong}))
        self.assertTrue(is_left_alone({"creation_content": {"additional_creators": "x"}}))
        versions: list[Any] = [None, 11, ["11"], {}, "13"]
        for version in versions:
            self.assertTrue(is_left_alone({"room_version": version}), version)

    def test_what_synapse_takes_for_nothing_is_nothing(self) -> None:
        values: list[Any] = [None, "", [], 0, False, {}]
        for nothing in values:
            users = changed({"power_level_content_override": nothing})["power_level_content_override"]
            self.assertEqual(set(users), {"users"})


class Random(unittest.TestCase):
    """The same requests in each run: what failed once fails again."""

    def setUp(self) -> None:
        self.random = random.Random(20)
        rooms = {"excludeUsers": [BOB], "excludeSpaces": ["!s:x"], "creatorPattern": "a"}
        (self.bot,) = parse({"bots": [{"userId": AUDIT, "rooms": rooms}]})

    def value(self, depth: int = 0) -> Any:
        plain = [*JUNK, ALICE, BOB, AUDIT, "m.room.power_levels", FUNCTIONAL_MEMBERS, "private_chat", 100, 50]
        if depth > 3 or self.random.random() < 0.5:
            return copy.deepcopy(self.random.choice(plain))
        if self.random.random() < 0.5:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        names = ["users", "events", "type", "content", "state_key", "invite", "service_members", ALICE, BOB]
        return {self.random.choice(names): self.value(depth + 1) for _ in range(self.random.randrange(5))}

    def test_no_request_is_an_error_or_changed_in_place(self) -> None:
        read_ones = 0
        for _ in range(20_000):
            request = {key: self.value() for key in self.random.sample(KEYS, self.random.randrange(4))}
            request["room_version"] = self.random.choice(["10", "11", "12"])
            before = copy.deepcopy(request)
            try:
                creation = read(request, ALICE, FACTS)
                belongs(creation, self.bot)
                found = changes(creation, [AUDIT], {})
            except LeftAlone:
                continue
            finally:
                self.assertEqual(request, before)
            read_ones += 1
            self.assertIn(AUDIT, [*request.get("invite", []), *invitations(found)])
        self.assertGreater(read_ones, 1000, "most of them test nothing")


if __name__ == "__main__":
    unittest.main()
