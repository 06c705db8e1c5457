// JSON lines: one request `{id, op, ...}` per line of stdin, one answer `{id, ok, result | error}` per line of stdout.
// Requests run at the same time; whoever needs an order waits for the answers. Operations: README.md.

import "./lib/quiet.mjs";

import { createInterface } from "node:readline";

import * as messages from "./lib/messages.mjs";
import * as recovery from "./lib/recovery.mjs";
import * as rooms from "./lib/rooms.mjs";
import { endSession, login, logout, sessionOf, sessions } from "./lib/session.mjs";
import { describeError, withTimeout } from "./lib/util.mjs";

const operations = { ...messages.operations, ...recovery.operations, ...rooms.operations };

async function run({ op, ...args }) {
    switch (op) {
        case "login":
            return (await login(args)).describe();
        case "signIn":
            return recovery.signIn(args);
        case "recoverWithPhrase":
            return recovery.recoverWithPhrase(args);
        case "logout":
            return logout(args);
        case "stop":
            if (args.user) endSession(args.user);
            else [...sessions.keys()].forEach(endSession);
            return {};
        case "sessions":
            return Object.fromEntries([...sessions].map(([name, session]) => [name, session.describe()]));
    }
    const operation = Object.hasOwn(operations, op) ? operations[op] : undefined;
    if (!operation) {
        const known = [...Object.keys(operations), "login", "signIn", "recoverWithPhrase", "logout", "stop", "sessions"].sort();
        throw new Error(`unknown operation ${JSON.stringify(op)}; there are: ${known.join(", ")}`);
    }
    return operation(sessionOf(args.user), args);
}

async function answer(line) {
    let request;
    try {
        request = JSON.parse(line);
    } catch {
        return { id: null, ok: false, error: { message: "the line is not JSON" } };
    }
    const { id = null, timeoutMs = 60_000, ...rest } = request;
    try {
        const what = `${rest.op} of ${rest.user ?? "nobody"}`;
        const result = await withTimeout(run({ ...rest, timeoutMs }), timeoutMs, what);
        return { id, ok: true, result: result ?? {} };
    } catch (error) {
        return { id, ok: false, error: describeError(error) };
    }
}

process.on("unhandledRejection", (error) => {
    process.stderr.write(`a background task failed: ${error?.message ?? error}\n`);
});

const input = createInterface({ input: process.stdin, crlfDelay: Infinity });
input.on("line", async (line) => {
    if (line.trim() === "") return;
    process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
});
input.on("close", () => {
    [...sessions.keys()].forEach(endSession);
    process.exit(0);
});
