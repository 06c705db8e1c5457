// Sending, reading and waiting for events.

import { randomBytes, webcrypto } from "node:crypto";

import { Direction, EventType } from "matrix-js-sdk";

import { whenReady } from "./rooms.mjs";
import { patience, poll, required } from "./util.mjs";

async function sendEvent(session, args, type, content) {
    required(args, "room");
    await whenReady(session, args.room, args);
    const { event_id: event } = await session.client.sendEvent(args.room, type, content);
    return { event };
}

const message = (session, args, content) => sendEvent(session, args, EventType.RoomMessage, content);

const base64 = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

async function encryptFile(data) {
    const key = randomBytes(32);
    const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
    const imported = await webcrypto.subtle.importKey("raw", key, "AES-CTR", false, ["encrypt"]);
    const cipher = await webcrypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, imported, data);
    const hash = await webcrypto.subtle.digest("SHA-256", cipher);
    const k = key.toString("base64url");
    return {
        data: Buffer.from(cipher),
        file: {
            v: "v2",
            iv: base64(iv),
            hashes: { sha256: base64(hash) },
            key: { alg: "A256CTR", ext: true, k, key_ops: ["encrypt", "decrypt"], kty: "oct" },
        },
    };
}

async function sendFile(session, args) {
    required(args, "room", "name", "data");
    await whenReady(session, args.room, args);
    const type = args.mimetype ?? "application/octet-stream";
    const plain = Buffer.from(args.data, "base64");
    const encrypted = (await session.crypto?.isEncryptionEnabledInRoom(args.room)) ? await encryptFile(plain) : null;
    const { content_uri: url } = await session.client.uploadContent(encrypted?.data ?? plain, {
        type: encrypted ? "application/octet-stream" : type,
        name: args.name,
        includeFilename: !encrypted,
    });
    const where = encrypted ? { file: { ...encrypted.file, url } } : { url };
    const msgtype = type.startsWith("image/") ? "m.image" : "m.file";
    const info = { mimetype: type, size: plain.length };
    const content = { msgtype, body: args.name, filename: args.name, info, ...where };
    return { ...(await message(session, args, content)), url };
}

async function decrypt(session, event) {
    await session.client.decryptEventIfNeeded(event);
    if (event.isDecryptionFailure() && session.crypto) {
        await event.attemptDecryption(session.crypto, { isRetry: true });
    }
}

async function describe(session, event) {
    const failed = event.isDecryptionFailure();
    const shield = event.isEncrypted() && !failed && session.crypto
        ? await session.crypto.getEncryptionInfoForEvent(event) : null;
    return {
        event: event.getId(),
        type: event.getType(),
        sender: event.getSender(),
        stateKey: event.getStateKey() ?? null,
        ts: event.getTs(),
        encrypted: event.isEncrypted(),
        decrypted: event.isEncrypted() ? !failed : null,
        failure: failed ? event.decryptionFailureReason : null,
        // What Element would show beside the message: 0 nothing, 1 grey, 2 red; and why.
        shield: shield ? { colour: shield.shieldColour, reason: shield.shieldReason } : null,
        redacted: event.isRedacted(),
        // Of a failure the SDK makes up a text, which no test must take for a message.
        content: failed ? null : event.getOriginalContent(),
        body: failed ? null : (event.getOriginalContent().body ?? null),
    };
}

// Asked of the homeserver, not of the timeline: it has events too that came before this device did.
async function fetchEvent(session, room, id) {
    try {
        const raw = await session.client.fetchRoomEvent(room, id);
        return session.client.getEventMapper({ decrypt: false, preventReEmit: true })({ ...raw, room_id: room });
    } catch (error) {
        if (error.httpStatus === 404 || error.httpStatus === 403) return undefined;
        throw error;
    }
}

async function waitForEvent(session, args) {
    required(args, "room", "event");
    let event;
    await poll(async () => {
        event = await fetchEvent(session, args.room, args.event);
        if (!event) return undefined;
        await decrypt(session, event);
        return event.isDecryptionFailure() ? undefined : true;
    }, patience(args), 250);
    if (!event) throw new Error(`${session.userId} sees no event ${args.event} in ${args.room}`);
    return describe(session, event);
}

async function waitForMessage(session, args) {
    required(args, "room");
    const { room, body, contains, sender } = args;
    const fits = (one) => one.body !== null && (sender === undefined || one.sender === sender)
        && (body === undefined || one.body === body) && (contains === undefined || one.body.includes(contains));
    let newest = [];
    const found = await poll(async () => {
        newest = (await readRoom(session, { ...args, limit: args.limit ?? 50 })).events;
        return newest.findLast(fits);
    }, patience(args), 400);
    if (!found) {
        const failures = newest.filter((one) => one.failure).length;
        const seen = `the newest ${newest.length} events of ${room}, of which ${failures} do not decrypt`;
        throw new Error(`no such message among ${seen}`);
    }
    return found;
}

// The newest `limit` events, oldest first.
async function readRoom(session, args) {
    required(args, "room");
    const map = session.client.getEventMapper({ decrypt: false, preventReEmit: true });
    const events = [];
    let from = null;
    do {
        const left = (args.limit ?? 100) - events.length;
        const size = Math.min(left, 100);
        const page = await session.client.createMessagesRequest(args.room, from, size, Direction.Backward);
        for (const raw of page.chunk) {
            const event = map({ ...raw, room_id: args.room });
            await decrypt(session, event);
            events.push(await describe(session, event));
        }
        from = page.chunk.length > 0 ? (page.end ?? null) : null;
    } while (from !== null && events.length < (args.limit ?? 100));
    events.reverse();
    return { events, failures: events.filter((one) => one.failure).length };
}

export const operations = {
    sendFile,
    waitForEvent,
    waitForMessage,
    readRoom,
    send: (session, args) => message(session, args, { msgtype: args.msgtype ?? "m.text", body: args.body }),
    sendFormatted: (session, args) => message(session, args, {
        msgtype: "m.text", body: args.body, format: "org.matrix.custom.html", formatted_body: args.html,
    }),
    reply: (session, args) => message(session, args, {
        msgtype: "m.text", body: args.body, "m.relates_to": { "m.in_reply_to": { event_id: args.event } },
    }),
    thread: (session, args) => message(session, args, {
        msgtype: "m.text", body: args.body, "m.relates_to": { rel_type: "m.thread", event_id: args.event },
    }),
    edit: (session, args) => message(session, args, {
        msgtype: "m.text", body: `* ${args.body}`, "m.new_content": { msgtype: "m.text", body: args.body },
        "m.relates_to": { rel_type: "m.replace", event_id: args.event },
    }),
    react: (session, args) => sendEvent(session, args, EventType.Reaction, {
        "m.relates_to": { rel_type: "m.annotation", event_id: args.event, key: args.key },
    }),
    redact: async (session, args) => {
        required(args, "room", "event");
        const answer = await session.client.redactEvent(args.room, args.event, undefined, { reason: args.reason });
        return { event: answer.event_id };
    },
    sendRaw: (session, args) => sendEvent(session, args, args.type, args.content),
    sendSticker: (session, args) => sendEvent(session, args, EventType.Sticker, {
        body: args.body, url: args.url, info: args.info ?? { mimetype: "image/png", w: 64, h: 64 },
    }),
    sendPoll: (session, args) => sendEvent(session, args, "org.matrix.msc3381.poll.start", {
        "org.matrix.msc1767.text": `${args.question}\n${args.answers.join("\n")}`,
        "org.matrix.msc3381.poll.start": {
            kind: "org.matrix.msc3381.poll.disclosed",
            max_selections: 1,
            question: { "org.matrix.msc1767.text": args.question, body: args.question, msgtype: "m.text" },
            answers: args.answers.map((text, index) => ({ id: String(index), "org.matrix.msc1767.text": text })),
        },
    }),
    sendLocation: (session, args) => message(session, args, {
        msgtype: "m.location", body: args.body, geo_uri: args.geo,
    }),
    markRead: async ({ client }, { room, event }) => {
        await client.setRoomReadMarkersHttpRequest(room, event, event);
    },
    typing: async ({ client }, { room, ms = 5_000 }) => void (await client.sendTyping(room, ms > 0, ms)),
};
