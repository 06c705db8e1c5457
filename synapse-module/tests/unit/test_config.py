"""What a configuration may say, and how it is refused."""

from __future__ import annotations

import unittest
from typing import Any

from synapse_ems_bots.config import Refused, parse

AUDIT = "@auditbot:example.org"
ROOMS: dict[str, Any] = {
    "directMessages": False,
    "localOnly": True,
    "only": ["!a:example.org", "!v12withoutserver"],
    "excludeUsers": ["@doctor:example.org"],
    "excludeSpaces": ["!council:example.org"],
    "creatorPattern": "^@staff_.*:example[.]org$",
    "minimumLastActive": "90d",
    "leaveExcluded": True,
    "notice": "This room is audited.",
}


class Accepted(unittest.TestCase):
    def test_a_bot_without_rooms_belongs_everywhere(self) -> None:
        (bot,) = parse({"bots": [{"userId": AUDIT}]})
        self.assertEqual(bot.user_id, AUDIT)
        self.assertTrue(bot.rooms.direct_messages)
        self.assertFalse(bot.rooms.named_only or bot.rooms.exclude_users or bot.rooms.has_excluded_spaces)
        self.assertIsNone(bot.rooms.creator_pattern)

    def test_a_resource_s_rooms_are_taken_as_they_are(self) -> None:
        (bot,) = parse({"bots": [{"userId": AUDIT, "rooms": ROOMS}]})
        self.assertFalse(bot.rooms.direct_messages)
        self.assertTrue(bot.rooms.named_only and bot.rooms.has_excluded_spaces)
        self.assertEqual(bot.rooms.exclude_users, {"@doctor:example.org"})
        assert bot.rooms.creator_pattern is not None
        self.assertTrue(bot.rooms.creator_pattern.search("@staff_1:example.org"))
        self.assertEqual(bot.as_written, ROOMS)

    def test_the_order_of_the_file_is_kept(self) -> None:
        names = ["@b:x", "@a:x", "@c:x"]
        self.assertEqual([bot.user_id for bot in parse({"bots": [{"userId": name} for name in names]})], names)


class Refusals(unittest.TestCase):
    def assert_refused(self, config: object, path: str, problem: str) -> None:
        with self.assertRaises(Refused) as caught:
            parse(config)
        self.assertEqual(".".join(caught.exception.path), path)
        self.assertIn(problem, caught.exception.problem)
        self.assertIn(path, str(caught.exception))

    def assert_rooms_refused(self, rooms: object, path: str, problem: str) -> None:
        self.assert_refused({"bots": [{"userId": AUDIT, "rooms": rooms}]}, f"bots.0.rooms{path}", problem)

    def test_what_is_no_configuration(self) -> None:
        configs: list[object] = [None, [], "x", 1]
        for config in configs:
            self.assert_refused(config, "", "mapping")
        self.assert_refused({}, "bots", "list")
        self.assert_refused({"bots": []}, "bots", "at least one")
        self.assert_refused({"bots": {"userId": AUDIT}}, "bots", "list")
        self.assert_refused({"bots": [AUDIT]}, "bots.0", "mapping")

    def test_unknown_keys_on_every_level(self) -> None:
        self.assert_refused({"bots": [{"userId": AUDIT}], "bot": 1}, "bot", "unknown")
        self.assert_refused({"bots": [{"userId": AUDIT, "power": 50}]}, "bots.0.power", "unknown")
        self.assert_rooms_refused({"excludedUsers": ["@a:x"]}, ".excludedUsers", "excludeUsers")
        self.assert_rooms_refused({1: 2}, ".1", "unknown")

    def test_ids_of_bots(self) -> None:
        self.assert_refused({"bots": [{}]}, "bots.0.userId", "missing")
        for wrong in ("auditbot", "@auditbot", "@:x", "@a:", "@a b:x", "@a:x y", "", "@" + "a" * 300 + ":x", 1, None):
            self.assert_refused({"bots": [{"userId": wrong}]}, "bots.0.userId", "must")
        twice = {"bots": [{"userId": AUDIT}, {"userId": AUDIT}]}
        self.assert_refused(twice, "bots.1.userId", "twice")

    def test_values_of_rooms(self) -> None:
        self.assert_rooms_refused([], "", "mapping")
        self.assert_rooms_refused(None, "", "mapping")
        self.assert_rooms_refused({"directMessages": "no"}, ".directMessages", "true or false")
        self.assert_rooms_refused({"localOnly": 0}, ".localOnly", "true or false")
        self.assert_rooms_refused({"excludeUsers": "@a:x"}, ".excludeUsers", "list")
        self.assert_rooms_refused({"excludeUsers": ["@a:x", "b"]}, ".excludeUsers.1", "user ID")
        self.assert_rooms_refused({"excludeUsers": ["@a:x"] * 1001}, ".excludeUsers", "1000")
        self.assert_rooms_refused({"excludeSpaces": ["#council:x"]}, ".excludeSpaces.0", "room ID")
        self.assert_rooms_refused({"excludeSpaces": ["!a b"]}, ".excludeSpaces.0", "room ID")
        self.assert_rooms_refused({"deny": [1]}, ".deny.0", "text")
        self.assert_rooms_refused({"deny": ["!a:x"], "only": ["!b:x"]}, ".deny", "together")
        self.assert_rooms_refused({"creatorPattern": "("}, ".creatorPattern", "regular expression")
        self.assert_rooms_refused({"creatorPattern": ""}, ".creatorPattern", "characters")
        self.assert_rooms_refused({"minimumLastActive": "90"}, ".minimumLastActive", "90d")
        self.assert_rooms_refused({"notice": "x" * 2001}, ".notice", "2000")


if __name__ == "__main__":
    unittest.main()
