"""A request to create a room, as a user of the homeserver sent it, read without trust. Pure.

The request is any JSON object. What it lacks, Synapse completes; what is wrong in it, Synapse refuses. Both are
repeated here only as far as they decide where a bot can be put. Whatever looks wrong is left exactly as it came, so
that it is Synapse that answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PRIVATE, TRUSTED, PUBLIC = "private_chat", "trusted_private_chat", "public_chat"
PRESETS = (PRIVATE, TRUSTED, PUBLIC)
MEMBER = "m.room.member"
POWER_LEVELS = "m.room.power_levels"
SPACE_PARENT = "m.space.parent"
FULL_POWER = 100


class LeftAlone(Exception):
    """The request stays as it came. The message is for the log and holds nothing that a user has written."""


@dataclass(frozen=True)
class Facts:
    """What the homeserver's configuration says about the rooms that are created on it."""

    default_version: str
    creators_stand_above: Mapping[str, bool]
    """For each room version that is known whether creators have power above every level (12 and later)."""
    preset_levels: Mapping[str, Any]
    """`default_power_level_content_override`: power levels by preset."""


@dataclass(frozen=True)
class Creation:
    """A request that Synapse would probably carry out."""

    creator: str
    creators: frozenset[str]
    """Users with power above every level, who must not be named in power levels; empty before version 12."""
    invited: list[str]
    third_party: int
    override: dict[str, Any]
    state: list[dict[str, Any]]
    levels: dict[str, Any]
    """The power levels that the room would start with, as far as they matter here."""
    levels_at: int | None
    """Where in `state` they are, if the client sends the event itself. Then `override` has no effect."""
    is_direct: bool

    @property
    def stands_above(self) -> bool:
        """The creator has power above every level."""
        return bool(self.creators)

    @property
    def creator_level(self) -> int:
        """What the creator has where creators do not stand above all."""
        return _number(self.levels["users"].get(self.creator, self.levels["users_default"]))

    def has_member(self, user: str) -> bool:
        """The client sends a membership of this user itself, a ban for example. An invitation must not replace it."""
        return any(event["type"] == MEMBER and event.get("state_key") == user for event in self.state)

    @property
    def in_space(self) -> bool:
        """The client says that the room belongs to a space."""
        return any(event["type"] == SPACE_PARENT for event in self.state)

    def may_send_state(self, kind: str) -> bool:
        """The creator may send state events of this kind."""
        return self.stands_above or self.creator_level >= _number(
            self.levels["events"].get(kind, self.levels["state_default"])
        )


def read(request: Mapping[str, Any], creator: str, facts: Facts) -> Creation:
    """Raises LeftAlone if there is nothing to be done with it."""
    version = _text(request.get("room_version", facts.default_version))
    above = facts.creators_stand_above.get(version)
    if above is None:
        raise LeftAlone("the homeserver does not know the room version")
    preset = _preset(request)
    invited = [_text(user) for user in _list(request.get("invite", []))]
    content = _dict(request.get("creation_content", {}))
    state = [_event(one) for one in _list(request.get("initial_state", []))]
    # Synapse takes everything that is false for "not given" here.
    override = _dict(request.get("power_level_content_override") or {})
    creators = _creators(creator, preset, invited, content) if above else frozenset()
    levels_at = _last(state, POWER_LEVELS)
    if levels_at is None:
        levels = _composed(creator, preset, [] if above else invited, bool(above), override, facts)
    else:
        levels = {"invite": 0, "state_default": 50, **_dict(state[levels_at]["content"])}
    creation = Creation(
        creator=creator,
        creators=creators,
        invited=invited,
        third_party=len(_list(request.get("invite_3pid", []))),
        override=override,
        state=state,
        levels=_checked(levels),
        levels_at=levels_at,
        is_direct=bool(request.get("is_direct")),
    )
    _may_invite(creation)
    return creation


def _preset(request: Mapping[str, Any]) -> str:
    if "preset" in request:
        preset = _text(request["preset"])
    else:
        preset = PRIVATE if request.get("visibility", "private") == "private" else PUBLIC
    if preset not in PRESETS:
        raise LeftAlone("the preset is unknown")
    return preset


def _creators(creator: str, preset: str, invited: list[str], content: dict[str, Any]) -> frozenset[str]:
    """Whoever is invited to a trusted private chat becomes one."""
    named = [_text(user) for user in _list(content.get("additional_creators", []))]
    return frozenset([creator, *named, *(invited if preset == TRUSTED else [])])


def _composed(
    creator: str, preset: str, invited: list[str], above: bool, override: dict[str, Any], facts: Facts
) -> dict[str, Any]:
    """As Synapse composes them: its defaults, the preset, the homeserver's configuration, the client's wishes. The last
    two replace `users` as a whole."""
    users = {} if above else {creator: FULL_POWER}
    if preset == TRUSTED:
        users.update(dict.fromkeys(invited, FULL_POWER))
    levels = {
        "users": users,
        "state_default": 50,
        "invite": 50 if preset == PUBLIC else 0,
        **_dict(_dict(facts.preset_levels).get(preset) or {}),
        **override,
    }
    # Synapse demands this of the client's wishes, and what is added here counts as such.
    if not above and creator not in _dict(levels["users"]):
        raise LeftAlone("the power levels do not name the creator")
    return levels


def _checked(levels: dict[str, Any]) -> dict[str, Any]:
    """With defaults, and nothing but numbers. Text that looks like one is allowed before version 10, and left alone."""
    found = {"users": {}, "users_default": 0, "events": {}, **levels}
    for key in ("users_default", "state_default", "invite"):
        _number(found[key])
    for key in ("users", "events"):
        for level in _dict(found[key]).values():
            _number(level)
    return found


def _may_invite(creation: Creation) -> None:
    if creation.has_member(creation.creator):
        raise LeftAlone("the creator may not be in the room when it invites")
    if not creation.stands_above and creation.creator_level < creation.levels["invite"]:
        raise LeftAlone("the creator would not have the power to invite")


def _last(state: list[dict[str, Any]], kind: str) -> int | None:
    """Of several events of one kind Synapse sends the last."""
    found = [index for index, event in enumerate(state) if event["type"] == kind and event.get("state_key", "") == ""]
    return found[-1] if found else None


def last_of(creation: Creation, kind: str) -> int | None:
    """Where in the initial state the event of this kind with an empty state key is."""
    return _last(creation.state, kind)


def _event(value: object) -> dict[str, Any]:
    event = _dict(value)
    if "type" not in event or "content" not in event:
        raise LeftAlone("an event of the initial state lacks type or content")
    return event


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LeftAlone("an object was expected")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise LeftAlone("a list was expected")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise LeftAlone("text was expected")
    return value


def _number(value: object) -> int:
    # `True` is an int in Python, and none in a power level.
    if type(value) is not int:
        raise LeftAlone("a whole number was expected")
    return value
