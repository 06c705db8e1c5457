"""Another module, as homeservers have them: it lets nobody invite the account that it is configured with."""

from __future__ import annotations

from typing import Any

from synapse.module_api import NOT_SPAM
from synapse.module_api.errors import Codes


class Refuser:
    def __init__(self, config: dict[str, str], api: Any) -> None:
        self.refused = config["refused"]
        api.register_spam_checker_callbacks(user_may_invite=self.user_may_invite)

    async def user_may_invite(self, _inviter: str, invitee: str, _room: str) -> Any:
        return Codes.BAD_STATE if invitee == self.refused else NOT_SPAM
