"""The thin part: what it asks the homeserver, and that it never stands in anybody's way. Needs Synapse installed."""

from __future__ import annotations

import unittest
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

from synapse.api.errors import SynapseError
from synapse.config._base import format_config_error
from synapse.module_api import ModuleApi, Requester, UserID
from synapse.module_api.errors import ConfigError
from synapse.util.module_loader import load_module

from synapse_ems_bots import __version__, module
from synapse_ems_bots.homeserver import Homeserver
from synapse_ems_bots.module import EmsBots
from synapse_ems_bots.status import PATH, Status

from .support import ADMIN, ALICE, AUDIT, BOB, BOTS, FACTS, invitations

CONFIG = {"bots": [{"userId": AUDIT, "rooms": {"directMessages": False}}, {"userId": ADMIN}]}


@dataclass
class FakeRequester:
    user: UserID = field(default_factory=lambda: UserID.from_string(ALICE))
    scope: frozenset[str] = frozenset()


class FakeApi:
    """What the module uses of the module API."""

    server_name = "example.org"

    def __init__(self) -> None:
        self.callbacks: dict[str, Any] = {}
        self.resources: dict[str, Any] = {}
        self.requester = FakeRequester()
        self.admins = {ADMIN}

    def is_mine(self, user_id: str) -> bool:
        return user_id.endswith(":example.org")

    def register_third_party_rules_callbacks(self, **callbacks: Any) -> None:
        self.callbacks.update(callbacks)

    def register_web_resource(self, path: str, resource: Any) -> None:
        self.resources[path] = resource

    async def get_user_by_req(self, _request: object) -> FakeRequester:
        return self.requester

    async def is_user_admin(self, user_id: str) -> bool:
        return user_id in self.admins


class FakeHomeserver:
    """Answers of the homeserver, to be set by the test."""

    facts = FACTS

    def __init__(self, _api: object) -> None:
        self.accounts = set(BOTS)

    async def has_account(self, bot: str) -> bool:
        return bot in self.accounts

    async def profile(self, bot: str) -> dict[str, str]:
        return {"displayname": bot}


class Creating(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.api = FakeApi()
        patched = mock.patch.object(module, "Homeserver", FakeHomeserver)
        patched.start()
        self.addCleanup(patched.stop)
        with self.assertLogs(module.logger, "INFO") as self.said:
            self.module = EmsBots(EmsBots.parse_config(CONFIG), cast(ModuleApi, self.api))
        self.homeserver = cast(FakeHomeserver, self.module._homeserver)

    async def invited(self, request: dict[str, Any]) -> list[str]:
        await self.api.callbacks["on_create_room"](cast(Requester, FakeRequester()), request, False)
        return list(invitations(request))

    def test_it_says_what_it_is_and_does(self) -> None:
        (line,) = self.said.output
        for word in (__version__, *BOTS, "100"):
            self.assertIn(word, line)

    async def test_both_bots(self) -> None:
        request: dict[str, Any] = {}
        self.assertEqual(await self.invited(request), BOTS)
        self.assertEqual(invitations(request)[AUDIT], {"membership": "invite", "displayname": AUDIT})

    async def test_the_selection_of_each_bot(self) -> None:
        self.assertEqual(await self.invited({"is_direct": True, "invite": [BOB]}), [ADMIN])

    async def test_accounts_that_do_not_exist_yet_and_then_do(self) -> None:
        self.homeserver.accounts = {ADMIN}
        self.assertEqual(await self.invited({}), [ADMIN])
        self.homeserver.accounts = {ADMIN, AUDIT}
        self.assertEqual(await self.invited({}), BOTS)

    async def test_its_own_errors_change_nothing(self) -> None:
        with mock.patch.object(FakeHomeserver, "has_account", side_effect=RuntimeError("broken")):
            request: dict[str, Any] = {"invite": [BOB]}
            with self.assertLogs(module.logger, "ERROR") as said:
                await self.invited(request)
            self.assertEqual(request, {"invite": [BOB]})
            self.assertIn("broken", said.output[0])
        with self.assertLogs(module.logger, "DEBUG") as said:
            self.assertEqual(await self.invited({"room_version": 1}), [])
        self.assertIn("text was expected", said.output[0])

    def test_an_unknown_synapse_is_left_in_peace(self) -> None:
        api = FakeApi()
        with (
            mock.patch.object(module, "Homeserver", side_effect=AttributeError("moved")),
            self.assertLogs(module.logger, "ERROR") as said,
        ):
            unfit = EmsBots(EmsBots.parse_config(CONFIG), cast(ModuleApi, api))
        self.assertEqual(api.callbacks, {})
        self.assertIs(unfit.status()["active"], False)
        self.assertIn("moved", "".join(said.output))


class Configuring(unittest.TestCase):
    def test_bots_of_other_homeservers(self) -> None:
        bots = EmsBots.parse_config({"bots": [{"userId": "@auditbot:elsewhere.org"}]})
        with self.assertRaises(ConfigError) as caught:
            EmsBots(bots, cast(ModuleApi, FakeApi()))
        self.assertIn("@auditbot:elsewhere.org", caught.exception.msg)

    def test_synapse_names_the_key(self) -> None:
        wrong = {"bots": [{"userId": AUDIT, "rooms": {"excludedUsers": []}}]}
        provider = {"module": "synapse_ems_bots.module.EmsBots", "config": wrong}
        with self.assertRaises(ConfigError) as caught:
            load_module(provider, ("modules", "<item 0>"))
        text = "".join(format_config_error(caught.exception))
        self.assertIn("modules.<item 0>.config.bots.0.rooms.excludedUsers", text)
        self.assertIn("is unknown", text)


class Asking(unittest.IsolatedAsyncioTestCase):
    """The status, and what is asked of Synapse."""

    async def test_the_status_is_for_admins(self) -> None:
        api = FakeApi()
        with mock.patch.object(module, "Homeserver", FakeHomeserver):
            EmsBots(EmsBots.parse_config(CONFIG), cast(ModuleApi, api))
        status = cast(Status, api.resources[PATH])
        request = cast(Any, object())
        with self.assertRaises(SynapseError) as caught:
            await status._async_render_GET(request)
        self.assertEqual(caught.exception.code, 403)
        expected = {
            "version": __version__,
            "active": True,
            "bots": [{"userId": AUDIT, "rooms": {"directMessages": False}}, {"userId": ADMIN, "rooms": {}}],
        }
        for admin in (
            FakeRequester(user=UserID.from_string(ADMIN)),
            FakeRequester(scope=frozenset(["urn:synapse:admin:*"])),
        ):
            api.requester = admin
            self.assertEqual(await status._async_render_GET(request), (200, expected))

    async def test_what_a_profile_lacks_is_not_shown(self) -> None:
        api = mock.AsyncMock()
        homeserver = Homeserver.__new__(Homeserver)
        homeserver._api = api
        api.get_profile_for_user.return_value = mock.Mock(display_name="Audit Bot", avatar_url=None)
        self.assertEqual(await homeserver.profile(AUDIT), {"displayname": "Audit Bot"})
        api.get_profile_for_user.assert_awaited_once_with("auditbot")


if __name__ == "__main__":
    unittest.main()
