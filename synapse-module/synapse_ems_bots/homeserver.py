"""What the module asks Synapse.

The module API does not tell the homeserver's configuration. All that is private to Synapse is fetched once, at the
start: if a release has moved any of it, that is known before the first room.
"""

from __future__ import annotations

from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.module_api import ModuleApi

from .creation import Facts


class Homeserver:
    """Raises AttributeError if this is not a Synapse that it knows."""

    def __init__(self, api: ModuleApi) -> None:
        config = api._hs.config
        self.facts = Facts(
            default_version=config.server.default_room_version.identifier,
            creators_stand_above={
                name: version.msc4289_creator_power_enabled for name, version in KNOWN_ROOM_VERSIONS.items()
            },
            preset_levels=config.room.default_power_level_content_override or {},
        )
        self._api = api

    async def has_account(self, bot: str) -> bool:
        """Synapse would invite an account that does not exist too. Synapse itself keeps the answer until it changes, on
        every one of its processes, so it is not kept here: a deactivated bot is out at once."""
        account = await self._api.get_userinfo_by_id(bot)
        return account is not None and not account.is_deactivated and not account.locked

    async def profile(self, bot: str) -> dict[str, str]:
        """What an invitation shows of the bot: Synapse adds it to those that it makes itself."""
        profile = await self._api.get_profile_for_user(bot[1:].partition(":")[0])
        shown = {"displayname": profile.display_name, "avatar_url": profile.avatar_url}
        return {key: value for key, value in shown.items() if value is not None}
