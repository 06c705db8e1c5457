"""Which bots belong in a new room, and what the request must say so that they are in it. Pure.

A request is never changed in place: Synapse keeps some of those that it makes itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .config import Bot
from .creation import FULL_POWER, MEMBER, POWER_LEVELS, Creation, LeftAlone, last_of

FUNCTIONAL_MEMBERS = "io.element.functional_members"
# An event may have 65,536 bytes. What a client makes nearly as large as that must not become too large here.
_LARGEST_CONTENT = 32_768


def belongs(creation: Creation, bot: Bot) -> bool:
    """Whether the bot's selection has a place for it in this room, as far as that can be known now."""
    rooms = bot.rooms
    if bot.user_id == creation.creator or rooms.named_only or creation.has_member(bot.user_id):
        return False
    if creation.is_direct:
        people = {creation.creator, *creation.invited}
        if not rooms.direct_messages or people & rooms.exclude_users:
            return False
        # Whom an e-mail address belongs to is not known here.
        if rooms.exclude_users and creation.third_party:
            return False
    # Whether a space is below an excluded one only the worker knows, who has read them all.
    if rooms.has_excluded_spaces and creation.in_space:
        return False
    return rooms.creator_pattern is None or rooms.creator_pattern.search(creation.creator) is not None


def newcomers(creation: Creation, bots: Sequence[str]) -> list[str]:
    """Those whom the client does not invite itself."""
    return [bot for bot in bots if bot not in creation.invited]


def changes(creation: Creation, bots: Sequence[str], profiles: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The keys of the request to replace, with their new values, so that these bots are invited and have full power.

    An invitation goes into the initial state and not into `invite`. Synapse then sends it together with the room's
    encryption, so that no client can know of the one without the other. It does not count for the limits of people's
    invitations; it does not say that the room is a direct chat with the bot, as those in `invite` do with `is_direct`;
    and version 12 does not make the bot a creator of a trusted private chat, whom nobody could remove.
    """
    state = list(creation.state)
    found: dict[str, Any] = {}
    users = _users(creation, bots)
    if users != creation.levels["users"]:
        _put_power(creation, users, state, found)
    invite = newcomers(creation, bots)
    if invite and creation.is_direct:
        _put_functional_members(creation, invite, state)
    for bot in invite:
        content = {"membership": "invite", **profiles.get(bot, {})}
        state.append({"type": MEMBER, "state_key": bot, "content": content})
    if state != creation.state:
        found["initial_state"] = state
    return found


def _users(creation: Creation, bots: Sequence[str]) -> dict[str, int]:
    """`users` of the power levels. Creators of version 12 must not be in it, and have more power anyway."""
    users: dict[str, int] = dict(creation.levels["users"])
    for bot in bots:
        if bot not in creation.creators:
            users[bot] = max(FULL_POWER, users.get(bot, FULL_POWER))
    return users


def _put_power(creation: Creation, users: dict[str, int], state: list[dict[str, Any]], found: dict[str, Any]) -> None:
    if creation.levels_at is None:
        levels = found["power_level_content_override"] = {**creation.override, "users": users}
    else:
        event = creation.state[creation.levels_at]
        levels = {**event["content"], "users": users}
        state[creation.levels_at] = {**event, "content": levels}
    _must_be_small(POWER_LEVELS, levels)


def _put_functional_members(creation: Creation, bots: Sequence[str], state: list[dict[str, Any]]) -> None:
    """So that clients go on showing a direct chat as one of its people. Nothing but looks depends on it: if the
    client's own entry cannot be read, it stays as it is."""
    if not creation.may_send_state(FUNCTIONAL_MEMBERS):
        return
    at = last_of(creation, FUNCTIONAL_MEMBERS)
    if at is None:
        state.append({"type": FUNCTIONAL_MEMBERS, "state_key": "", "content": {"service_members": list(bots)}})
        return
    content = creation.state[at]["content"]
    members = content.get("service_members", []) if isinstance(content, dict) else None
    if isinstance(members, list):
        merged = {**content, "service_members": [*members, *(bot for bot in bots if bot not in members)]}
        _must_be_small(FUNCTIONAL_MEMBERS, merged)
        state[at] = {**creation.state[at], "content": merged}


def _must_be_small(kind: str, content: dict[str, Any]) -> None:
    if len(json.dumps(content)) > _LARGEST_CONTENT:
        raise LeftAlone(f"{kind} is large")
