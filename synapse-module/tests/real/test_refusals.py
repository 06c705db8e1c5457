"""What keeps people from inviting does not keep the bots out, who are not people's guests, and hinders nobody."""

from __future__ import annotations

import unittest
from typing import Any

from .servers import ADMIN, AUDIT, MODULE, Server

server = Server("module-strict", "strict.internal")
OURS = {"module": MODULE, "config": {"bots": [{"userId": server.id(bot)} for bot in (AUDIT, ADMIN)]}}
REFUSER = {"module": "tests.real.refuser.Refuser", "config": {"refused": server.id(AUDIT)}}
LEVELS: dict[str, dict[str, Any]] = {"private_chat": {"ban": 77}, "public_chat": {"users": {"@x:x": 1}}}


def setUpModule() -> None:
    server.up([OURS, REFUSER], block_non_admin_invites=True, default_power_level_content_override=LEVELS)
    for bot in (AUDIT, ADMIN):
        server.person(bot)


def tearDownModule() -> None:
    server.wipe()


class Refusals(unittest.TestCase):
    def test_only_admins_may_invite_and_another_module_refuses(self) -> None:
        alice = server.person()
        for bot, refusal in ((ADMIN, "M_FORBIDDEN"), (AUDIT, "M_BAD_STATE")):
            status, answer = alice.try_create({"invite": [server.id(bot)]})
            self.assertEqual((status, answer["errcode"]), (403, refusal), "people are kept from it")
        self.assertEqual(alice.create().members(), {AUDIT, ADMIN})

    def test_a_bot_that_refuses_invitations(self) -> None:
        bot = server.person(ADMIN)
        path = f"/_matrix/client/v3/user/{bot.user_id}/account_data/m.invite_permission_config"
        self.assertEqual(bot.ask("PUT", path, {"default_action": "block"})[0], 200)
        self.assertEqual(server.person().create().members(), {AUDIT, ADMIN})

    def test_levels_of_the_configuration_are_kept(self) -> None:
        alice = server.person()
        bots = {server.id(AUDIT): 100, server.id(ADMIN): 100}
        private = alice.create().power()
        self.assertEqual((private["ban"], private["users"]), (77, bots))
        self.assertEqual(alice.create(preset="public_chat").power()["users"], {"@x:x": 1, **bots})


if __name__ == "__main__":
    unittest.main()
