"""What an administrator configures: the bots, and which rooms each of them belongs in. Pure.

`rooms` takes what `spec.rooms` of the bot's resource takes, so that it can be copied as it is. Everything is checked:
whoever misspells `excludeUsers` must hear of it at the start and not from the works council.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_USER_ID = re.compile(r"@[^\x00-\x20:]+:[^\x00-\x20]+")
_ROOM_ID = re.compile(r"![^\x00-\x20]+")
_DURATION = re.compile(r"[1-9][0-9]{0,4}[smhd]")
_LONGEST_ID = 255
_LONGEST_LIST = 1000


class Refused(Exception):
    """A value that the configuration may not have, and the keys that lead to it."""

    def __init__(self, path: tuple[str, ...], problem: str) -> None:
        super().__init__(f"{'.'.join(path) or 'config'}: {problem}")
        self.path, self.problem = path, problem


@dataclass(frozen=True)
class Rooms:
    """The part of a selection that can be known before a room exists."""

    direct_messages: bool = True
    named_only: bool = False
    """Only rooms that are listed by their IDs, which a room that does not exist yet is not."""
    exclude_users: frozenset[str] = frozenset()
    has_excluded_spaces: bool = False
    creator_pattern: re.Pattern[str] | None = None


@dataclass(frozen=True)
class Bot:
    """One account that is put into new rooms."""

    user_id: str
    rooms: Rooms = field(default_factory=Rooms)
    as_written: Mapping[str, object] = field(default_factory=dict)
    """`rooms` as it was configured, for whoever compares it with the bot's resource."""


def parse(config: object) -> tuple[Bot, ...]:
    """The bots in the order of the file."""
    fields = _mapping(config, (), ("bots",))
    listed = _array(fields.get("bots"), ("bots",))
    if not listed:
        raise Refused(("bots",), "must list at least one bot")
    bots = tuple(_bot(one, ("bots", str(index))) for index, one in enumerate(listed))
    seen: set[str] = set()
    for index, bot in enumerate(bots):
        if bot.user_id in seen:
            raise Refused(("bots", str(index), "userId"), f"{bot.user_id} is listed twice")
        seen.add(bot.user_id)
    return bots


def _bot(value: object, path: tuple[str, ...]) -> Bot:
    fields = _mapping(value, path, ("userId", "rooms"))
    if "userId" not in fields:
        raise Refused((*path, "userId"), "is missing")
    user_id = _user_id(fields["userId"], (*path, "userId"))
    rooms = fields.get("rooms", {})
    return Bot(user_id, _rooms(rooms, (*path, "rooms")), _mapping(rooms, (*path, "rooms"), tuple(_ROOMS)))


def _rooms(value: object, path: tuple[str, ...]) -> Rooms:
    fields = _mapping(value, path, tuple(_ROOMS))
    parsed = {key: _ROOMS[key](value, (*path, key)) for key, value in fields.items()}
    if parsed.get("deny") and parsed.get("only"):
        raise Refused((*path, "deny"), "cannot be used together with only: leave the denied rooms out of only")
    pattern = parsed.get("creatorPattern")
    excluded = parsed.get("excludeUsers")
    return Rooms(
        direct_messages=parsed.get("directMessages") is not False,
        named_only=bool(parsed.get("only")),
        exclude_users=excluded if isinstance(excluded, frozenset) else frozenset(),
        has_excluded_spaces=bool(parsed.get("excludeSpaces")),
        creator_pattern=pattern if isinstance(pattern, re.Pattern) else None,
    )


def _mapping(value: object, path: tuple[str, ...], known: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise Refused(path, "must be a mapping")
    for key in value:
        if key not in known:
            raise Refused((*path, str(key)), f"is unknown; there are: {', '.join(known)}")
    return dict(value)


def _array(value: object, path: tuple[str, ...]) -> list[object]:
    if not isinstance(value, list):
        raise Refused(path, "must be a list")
    if len(value) > _LONGEST_LIST:
        raise Refused(path, f"must have at most {_LONGEST_LIST} entries")
    return value


def _text(value: object, path: tuple[str, ...], most: int) -> str:
    if not isinstance(value, str):
        raise Refused(path, "must be text")
    if not 0 < len(value) <= most:
        raise Refused(path, f"must have 1 to {most} characters")
    return value


def _user_id(value: object, path: tuple[str, ...]) -> str:
    text = _text(value, path, _LONGEST_ID)
    if not _USER_ID.fullmatch(text):
        raise Refused(path, "must be a full user ID, for example @auditbot:example.org")
    return text


def _room_id(value: object, path: tuple[str, ...]) -> str:
    text = _text(value, path, _LONGEST_ID)
    if not _ROOM_ID.fullmatch(text):
        raise Refused(path, "must be a room ID, which begins with an exclamation mark; aliases and names do not work")
    return text


def _list_of(item: Callable[[object, tuple[str, ...]], str]) -> Callable[[object, tuple[str, ...]], object]:
    def parse_list(value: object, path: tuple[str, ...]) -> frozenset[str]:
        return frozenset(item(one, (*path, str(index))) for index, one in enumerate(_array(value, path)))

    return parse_list


def _switch(value: object, path: tuple[str, ...]) -> bool:
    if not isinstance(value, bool):
        raise Refused(path, "must be true or false")
    return value


def _pattern(value: object, path: tuple[str, ...]) -> re.Pattern[str]:
    text = _text(value, path, 256)
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(path, f"must be a regular expression that Python knows: {error}") from error


def _duration(value: object, path: tuple[str, ...]) -> str:
    text = _text(value, path, 6)
    if not _DURATION.fullmatch(text):
        raise Refused(path, "must be a whole number followed by s, m, h or d, for example 90d")
    return text


def _notice(value: object, path: tuple[str, ...]) -> str:
    return _text(value, path, 2000)


# `localOnly`, `deny`, `minimumLastActive`, `leaveExcluded` and `notice` are checked and without effect: a room that is
# being made here is of this server, has no ID yet and is not idle, no bot is in it, and the bot itself posts the notice
# when it joins.
_ROOMS: Mapping[str, Callable[[object, tuple[str, ...]], object]] = {
    "directMessages": _switch,
    "localOnly": _switch,
    "deny": _list_of(_room_id),
    "only": _list_of(_room_id),
    "excludeUsers": _list_of(_user_id),
    "excludeSpaces": _list_of(_room_id),
    "creatorPattern": _pattern,
    "minimumLastActive": _duration,
    "leaveExcluded": _switch,
    "notice": _notice,
}
