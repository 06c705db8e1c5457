"""The module itself: asks Synapse what the rules need to know, and applies what they say."""

from __future__ import annotations

import logging
from typing import Any

from synapse.module_api import ModuleApi, Requester
from synapse.module_api.errors import ConfigError

from . import __version__
from .config import Bot, Refused, parse
from .creation import LeftAlone, read
from .homeserver import Homeserver
from .rules import belongs, changes, newcomers
from .status import PATH, Status

logger = logging.getLogger(__name__)


class EmsBots:
    """Invites bots into rooms while they are created, and gives them power 100.

    Room upgrades do not come by here; Synapse offers modules no place in them.
    """

    def __init__(self, bots: tuple[Bot, ...], api: ModuleApi) -> None:
        for index, bot in enumerate(bots):
            if not api.is_mine(bot.user_id):
                path = ("modules", "synapse_ems_bots", "bots", str(index), "userId")
                raise ConfigError(f"{bot.user_id} is not an account of {api.server_name}", path)
        self._bots = bots
        self._homeserver = _known(api)
        names = ", ".join(bot.user_id for bot in bots)
        if self._homeserver is None:
            logger.error("synapse-ems-bots %s does not fit this Synapse and leaves every room as it is", __version__)
        else:
            api.register_third_party_rules_callbacks(on_create_room=self.on_create_room)
            logger.info("synapse-ems-bots %s invites %s into new rooms, with power 100", __version__, names)
        api.register_web_resource(PATH, Status(api, self.status()))

    @staticmethod
    def parse_config(config: dict[str, Any]) -> tuple[Bot, ...]:
        """Synapse calls it before the start, and shows its user which key is wrong and why."""
        try:
            return parse(config)
        except Refused as refused:
            raise ConfigError(refused.problem, refused.path) from None

    def status(self) -> dict[str, Any]:
        """What `PATH` answers."""
        return {
            "version": __version__,
            "active": self._homeserver is not None,
            "bots": [{"userId": bot.user_id, "rooms": dict(bot.as_written)} for bot in self._bots],
        }

    async def on_create_room(self, requester: Requester, request: dict[str, Any], _is_admin: bool) -> None:
        """Synapse takes an error for the wish to refuse the room, so there is none, whatever happens."""
        try:
            request.update(await self._changes(requester, request))
        except LeftAlone as reason:
            logger.debug("a new room is left as it is: %s", reason)
        except Exception:
            logger.exception("a new room is left as it is, because of an error")

    async def _changes(self, requester: Requester, request: dict[str, Any]) -> dict[str, Any]:
        homeserver = self._homeserver
        if homeserver is None:
            return {}
        creation = read(request, requester.user.to_string(), homeserver.facts)
        bots = [bot.user_id for bot in self._bots if belongs(creation, bot)]
        bots = [bot for bot in bots if await homeserver.has_account(bot)]
        return changes(creation, bots, {bot: await homeserver.profile(bot) for bot in newcomers(creation, bots)})


def _known(api: ModuleApi) -> Homeserver | None:
    try:
        return Homeserver(api)
    except AttributeError:
        logger.exception("this Synapse is not one of those that synapse-ems-bots knows")
        return None
