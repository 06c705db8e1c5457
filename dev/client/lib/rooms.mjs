// Rooms, members and state.

import { isDeepStrictEqual } from "node:util";

import { EventType, Preset, Visibility } from "matrix-js-sdk";

import { patience, poll, required } from "./util.mjs";

const ENCRYPTION = { type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };

async function stateOrNull(session, room, type, key = "") {
    try {
        return await session.client.getStateEvent(room, type, key);
    } catch (error) {
        if (error.httpStatus === 404) return null;
        throw error;
    }
}

const STALE_AFTER_MS = 3_000;

// Waits until the SDK has synced that `holds`. Where several people write to a room at once, Synapse's sync (unless
// MSC4222 is enabled there, which it is not by default) tells older state after newer, and never tells the newer again.
// Whoever sees that reloads the page; here the room's state is asked for.
async function synced({ client }, room, holds, ms) {
    const seen = () => (holds() ? true : undefined);
    const deadline = Date.now() + ms;
    if (await poll(seen, Math.min(ms, STALE_AFTER_MS), 50)) return true;
    while (Date.now() < deadline) {
        const known = client.getRoom(room);
        // A room of which it has heard nothing at all is still to come.
        if (known) {
            const state = await client.roomState(room).catch(() => []);
            known.currentState.setStateEvents(state.map(client.getEventMapper()));
            known.recalculate();
        }
        if (await poll(seen, Math.min(deadline - Date.now(), STALE_AFTER_MS), 50)) return true;
    }
    return false;
}

// What the SDK believes and what the homeserver says: who is to be mended is the one that differs.
async function whyUnready({ client, userId }, room) {
    const synced = `${client.getRoom(room)?.getMyMembership() ?? "nothing"} (sync: ${client.getSyncState()})`;
    const said = await stateOrNull({ client }, room, EventType.RoomMember, userId).catch((error) => error);
    const truth = said instanceof Error ? said.message : said?.membership ?? "nothing";
    return `${userId} has to be joined to ${room}: it has synced ${synced}, the homeserver says ${truth}`;
}

// The SDK decides by what it has synced whether a message is encrypted. So nothing is sent before it has seen the room,
// and, where the homeserver says that the room is encrypted, before it has seen that.
export async function whenReady(session, room, args) {
    const { client, crypto } = session;
    const known = await synced(
        session, room, () => client.getRoom(room)?.getMyMembership() === "join", patience(args),
    );
    if (!known) throw new Error(await whyUnready(session, room));
    if (crypto && (await stateOrNull(session, room, EventType.RoomEncryption)) !== null) {
        const ready = await poll(
            async () => ((await crypto.isEncryptionEnabledInRoom(room)) ? true : undefined), patience(args), 50,
        );
        if (!ready) throw new Error(`${session.userId} has not seen that ${room} is encrypted`);
    }
}

async function createRoom(session, args) {
    const { name, topic, alias, preset = "private_chat", encrypted = false, isDirect = false, invite = [] } = args;
    const { client } = session;
    const { room_id: room } = await client.createRoom({
        name,
        topic,
        room_alias_name: alias,
        preset: Object.values(Preset).includes(preset) ? preset : Preset.PrivateChat,
        visibility: args.visibility ?? (preset === Preset.PublicChat ? Visibility.Public : Visibility.Private),
        invite,
        is_direct: isDirect,
        room_version: args.roomVersion,
        creation_content: { ...(args.space ? { type: "m.space" } : {}), ...args.creationContent },
        initial_state: [...(encrypted ? [ENCRYPTION] : []), ...(args.initialState ?? [])],
        power_level_content_override: args.powerLevels,
    });
    if (isDirect && invite.length > 0) {
        const direct = { ...(client.getAccountData("m.direct")?.getContent() ?? {}) };
        direct[invite[0]] = [...(direct[invite[0]] ?? []), room];
        await client.setAccountData("m.direct", direct);
    }
    await whenReady(session, room, args);
    return { room };
}

async function join(session, args) {
    required(args, "room");
    const joined = await session.client.joinRoom(args.room, { viaServers: args.via });
    await whenReady(session, joined.roomId, args);
    return { room: joined.roomId };
}

const about = (method) => async (session, args) => {
    required(args, "room", "target");
    await session.client[method](args.room, args.target, args.reason);
};

async function members(session, { room, membership }) {
    const { chunk } = await session.client.members(room);
    const all = chunk.map(({ state_key: id, content }) => [
        id, { membership: content.membership, name: content.displayname ?? null },
    ]);
    return Object.fromEntries(membership ? all.filter(([, member]) => member.membership === membership) : all);
}

async function waitForMember(session, args) {
    required(args, "room", "target", "membership");
    let last = null;
    const found = await poll(async () => {
        last = await stateOrNull(session, args.room, EventType.RoomMember, args.target);
        return last?.membership === args.membership ? true : undefined;
    }, patience(args), 200);
    if (!found) {
        throw new Error(`${args.target} is ${last?.membership ?? "no member"} in ${args.room}, not ${args.membership}`);
    }
    // The answer comes from the homeserver; whether the SDK encrypts for the newcomer depends on what it has synced.
    const seen = () => session.client.getRoom(args.room)?.getMember(args.target)?.membership === args.membership;
    return { membership: last.membership, synced: await synced(session, args.room, seen, patience(args)) };
}

async function waitForState(session, args) {
    required(args, "room", "type");
    const { room, type, key = "", has = {} } = args;
    let last = null;
    const found = await poll(async () => {
        last = await stateOrNull(session, room, type, key);
        const fits = last !== null && Object.entries(has).every(([k, v]) => isDeepStrictEqual(last[k], v));
        return fits ? true : undefined;
    }, patience(args), 200);
    if (!found) throw new Error(`${type} of ${room} is ${JSON.stringify(last)}, which lacks ${JSON.stringify(has)}`);
    return { content: last };
}

async function setPowerLevel(session, args) {
    required(args, "room", "target", "level");
    const content = (await stateOrNull(session, args.room, EventType.RoomPowerLevels)) ?? {};
    content.users = { ...content.users, [args.target]: args.level };
    return session.client.sendStateEvent(args.room, EventType.RoomPowerLevels, content, "");
}

export const operations = {
    createRoom,
    join,
    members,
    waitForMember,
    waitForState,
    setPowerLevel,
    invite: about("invite"),
    kick: about("kick"),
    ban: about("ban"),
    unban: about("unban"),
    leave: async ({ client }, { room }) => void (await client.leave(room)),
    knock: async ({ client }, { room, reason }) => client.knockRoom(room, { reason }),
    upgradeRoom: async ({ client }, { room, version }) => {
        const answer = await client.upgradeRoom(room, version);
        return { room: answer.replacement_room };
    },
    setState: async ({ client }, { room, type, key = "", content }) => client.sendStateEvent(room, type, content, key),
    state: async (session, { room, type, key }) => ({ content: await stateOrNull(session, room, type, key) }),
    allState: async ({ client }, { room }) => ({ events: await client.roomState(room) }),
    powerLevels: async (session, { room }) => (await stateOrNull(session, room, EventType.RoomPowerLevels)) ?? {},
    joinedRooms: async ({ client }) => ({ rooms: (await client.getJoinedRooms()).joined_rooms }),
    invitations: async ({ client }) => ({
        rooms: client.getRooms().filter((room) => room.getMyMembership() === "invite").map((room) => room.roomId),
    }),
    displayName: async (session, { target }) => ({
        name: (await session.client.getProfileInfo(target ?? session.userId)).displayname ?? null,
    }),
    setDisplayName: async ({ client }, { name }) => void (await client.setDisplayName(name)),
};
