"""What the pure tests have in common."""

from __future__ import annotations

import copy
from typing import Any

from synapse_ems_bots.config import parse
from synapse_ems_bots.creation import Facts, LeftAlone, read
from synapse_ems_bots.rules import belongs, changes

ALICE, BOB = "@alice:example.org", "@bob:example.org"
AUDIT, ADMIN = "@auditbot:example.org", "@adminbot:example.org"
FACTS = Facts(default_version="12", creators_stand_above={"10": False, "11": False, "12": True}, preset_levels={})
BOTS = [AUDIT, ADMIN]
PROFILES = {AUDIT: {"displayname": "Audit Bot", "avatar_url": "mxc://example.org/a"}}


def changed(request: Any, *, bots: list[str] = BOTS, creator: str = ALICE, facts: Facts = FACTS) -> dict[str, Any]:
    """The request as Synapse goes on with it, if every bot is wanted and may come. The request itself stays."""
    before = copy.deepcopy(request)
    found = changes(read(request, creator, facts), bots, PROFILES)
    assert request == before, "the request was changed in place"
    return {**request, **found}


def is_left_alone(request: Any, *, facts: Facts = FACTS) -> bool:
    try:
        changed(request, facts=facts)
    except LeftAlone:
        return True
    return False


def is_wanted(request: Any, rooms: dict[str, Any], creator: str = ALICE) -> bool:
    """Whether a bot with this selection belongs in the room."""
    (bot,) = parse({"bots": [{"userId": AUDIT, "rooms": rooms}]})
    return belongs(read(request, creator, FACTS), bot)


def invitations(request: dict[str, Any]) -> dict[str, Any]:
    """Who is invited by the initial state, and how."""
    state = request.get("initial_state", [])
    return {one["state_key"]: one["content"] for one in state if one["type"] == "m.room.member"}


def event(kind: str, content: Any, key: str | None = "") -> dict[str, Any]:
    return {"type": kind, "content": content} | ({} if key is None else {"state_key": key})
