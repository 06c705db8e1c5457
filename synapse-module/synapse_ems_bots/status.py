"""How the operator of the bots finds out whether the module is at work."""

from __future__ import annotations

from http import HTTPStatus

from synapse.api.errors import Codes, SynapseError
from synapse.http.site import SynapseRequest
from synapse.module_api import DirectServeJsonResource, JsonDict, ModuleApi

PATH = "/_synapse/client/ems_bots/v1/status"
# What an admin's token carries where Synapse leaves accounts to the Matrix Authentication Service.
_ADMIN_SCOPE = "urn:synapse:admin:*"


class Status(DirectServeJsonResource):
    """For server admins alone: the selection names people."""

    def __init__(self, api: ModuleApi, answer: JsonDict) -> None:
        super().__init__()
        self._api, self._answer = api, answer

    async def _async_render_GET(self, request: SynapseRequest) -> tuple[int, JsonDict]:
        requester = await self._api.get_user_by_req(request)
        if _ADMIN_SCOPE not in requester.scope and not await self._api.is_user_admin(requester.user.to_string()):
            raise SynapseError(HTTPStatus.FORBIDDEN, "You are not a server admin", Codes.FORBIDDEN)
        return HTTPStatus.OK, self._answer
