// Signed-in users: a device with its own crypto store in memory.

import { randomInt } from "node:crypto";

import { ClientEvent, createClient, SyncState } from "matrix-js-sdk";
import {
    AllDevicesIsolationMode,
    deriveRecoveryKeyFromPassphrase,
    OnlySignedDevicesIsolationMode,
} from "matrix-js-sdk/lib/crypto-api/index.js";

import { patience, poll, required, withTimeout } from "./util.mjs";

export const sessions = new Map();

export function sessionOf(name) {
    const session = sessions.get(name);
    if (!session) {
        const known = [...sessions.keys()].join(", ") || "none";
        throw new Error(`${name ?? "nobody"} is not logged in here; there are: ${known}`);
    }
    return session;
}

class Session {
    secretStorageKeys = new Map();
    crossSigned = false;

    constructor({ name, homeserver, password }) {
        Object.assign(this, { name, homeserver, password });
        // Synapse counts logins per address (five, then one in five minutes): like people, each session has an address
        // of its own. These are of the range that is set aside for tests.
        const address = `198.18.${randomInt(256)}.${randomInt(1, 255)}`;
        this.fetchFn = (url, options = {}) => {
            const headers = new Headers(options.headers);
            headers.set("X-Forwarded-For", address);
            return fetch(url, { ...options, headers });
        };
    }

    get crypto() {
        return this.client.getCrypto();
    }

    get userId() {
        return this.client.getUserId();
    }

    describe() {
        return {
            session: this.name,
            userId: this.userId,
            deviceId: this.client.getDeviceId(),
            crossSigned: this.crossSigned,
        };
    }

    async signIn({ user, accessToken, userId, deviceId, deviceName, loginToken }) {
        let credentials = { accessToken, userId, deviceId };
        if (accessToken === undefined) {
            const anonymous = createClient({ baseUrl: this.homeserver, fetchFn: this.fetchFn });
            const proof = loginToken
                ? { type: "m.login.token", token: loginToken }
                : { type: "m.login.password", identifier: { type: "m.id.user", user }, password: this.password };
            const answer = await anonymous.loginRequest({
                ...proof,
                device_id: deviceId,
                initial_device_display_name: deviceName ?? "test client",
            });
            credentials = { accessToken: answer.access_token, userId: answer.user_id, deviceId: answer.device_id };
        } else if (userId === undefined || deviceId === undefined) {
            const probe = createClient({ baseUrl: this.homeserver, accessToken, fetchFn: this.fetchFn });
            const answer = await probe.whoami();
            credentials = { accessToken, userId: answer.user_id, deviceId: answer.device_id };
        }
        this.client = createClient({
            baseUrl: this.homeserver,
            ...credentials,
            fetchFn: this.fetchFn,
            localTimeoutMs: 60_000,
            timelineSupport: true,
            cryptoCallbacks: {
                getSecretStorageKey: (request) => this.findSecretStorageKey(request),
                cacheSecretStorageKey: (id, _info, key) => this.secretStorageKeys.set(id, key),
            },
        });
    }

    async findSecretStorageKey({ keys }) {
        for (const [id, info] of Object.entries(keys)) {
            if (this.secretStorageKeys.has(id)) return [id, this.secretStorageKeys.get(id)];
            if (this.phrase !== undefined && info.passphrase) {
                const { salt, iterations, bits } = info.passphrase;
                return [id, await deriveRecoveryKeyFromPassphrase(this.phrase, salt, iterations, bits)];
            }
        }
        return null;
    }

    async startCrypto(isolation = "signed") {
        await this.client.initRustCrypto({ useIndexedDB: false });
        // As Element since April 2026 (MSC4153): devices that their owner did not sign get no keys.
        this.crypto.setDeviceIsolationMode(
            isolation === "all" ? new AllDevicesIsolationMode(false) : new OnlySignedDevicesIsolationMode(),
        );
    }

    async startSync(ms) {
        const ready = new Promise((resolve, reject) => {
            const onSync = (state, _previous, data) => {
                if (state === SyncState.Prepared || state === SyncState.Syncing) resolve();
                else if (state === SyncState.Error && data?.error?.httpStatus === 401) reject(data.error);
                else return;
                this.client.off(ClientEvent.Sync, onSync);
            };
            this.client.on(ClientEvent.Sync, onSync);
        });
        await this.client.startClient({ initialSyncLimit: 30, pollTimeout: 20_000, lazyLoadMembers: false });
        await withTimeout(ready, ms, `the first sync of ${this.name}`);
    }

    // Answers a request for the password, which Synapse makes before it replaces keys or deletes devices.
    authenticate = async (makeRequest) => {
        try {
            return await makeRequest(null);
        } catch (error) {
            if (error.httpStatus !== 401 || !error.data?.session) throw error;
            if (this.password === undefined) {
                throw new Error(`the homeserver asks for the password of ${this.userId}: log in with it, or give it`);
            }
            return await makeRequest({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: this.userId },
                password: this.password,
                session: error.data.session,
            });
        }
    };

    async ensureCrossSigned() {
        if (!(await this.crypto.userHasCrossSigningKeys(this.userId, true))) {
            await this.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: this.authenticate });
            await this.whenCrossSigned();
        } else {
            await this.updateCrossSigned();
        }
    }

    // The SDK believes a signature that it has just made only when it sees it in the homeserver's answer.
    whenCrossSigned() {
        return poll(async () => ((await this.updateCrossSigned()) ? true : undefined), 10_000);
    }

    async updateCrossSigned() {
        await this.crypto.getUserDeviceInfo([this.userId], true);
        const status = await this.crypto.getDeviceVerificationStatus(this.userId, this.client.getDeviceId());
        this.crossSigned = status?.signedByOwner ?? false;
        return this.crossSigned;
    }
}

// `bootstrap: false` leaves cross-signing alone: an unsigned device, as that of a person who skipped the step.
export async function login(args) {
    required(args, "user", "homeserver");
    const { user, session: name = user, homeserver, password, bootstrap = true, crypto = true } = args;
    if (sessions.has(name)) throw new Error(`the session ${name} exists already; give another one as "session"`);
    const session = new Session({ name, homeserver: homeserver.replace(/\/$/, ""), password });
    await session.signIn(args);
    try {
        if (crypto) await session.startCrypto(args.isolation);
        await session.startSync(patience(args));
        if (crypto && bootstrap) await session.ensureCrossSigned();
    } catch (error) {
        session.client.stopClient();
        throw error;
    }
    sessions.set(name, session);
    return session;
}

export function endSession(name) {
    sessionOf(name).client.stopClient();
    sessions.delete(name);
}

export async function logout({ user }) {
    await sessionOf(user).client.logout(true);
    sessions.delete(user);
}
