// Secret storage, key backup, devices: setting them up, coming back with the phrase, and what people do to break them.

import { deriveRecoveryKeyFromPassphrase } from "matrix-js-sdk/lib/crypto-api/index.js";

import { endSession, login } from "./session.mjs";
import { patience, poll, required } from "./util.mjs";

async function setupRecovery(session, args) {
    required(args, "phrase");
    const key = await session.crypto.createRecoveryKeyFromPassphrase(args.phrase);
    await session.crypto.bootstrapSecretStorage({
        createSecretStorageKey: async () => key,
        setupNewSecretStorage: true,
        setupNewKeyBackup: true,
    });
    return whenBackupIsActive(session, args);
}

// A new device of a user that reads old messages with nothing but the phrase, as in Element's "Confirm your identity".
export async function recoverWithPhrase(args) {
    required(args, "user", "phrase", "homeserver");
    const session = await login({ ...args, bootstrap: false });
    try {
        return { ...(await openWithPhrase(session, args)), ...session.describe() };
    } catch (error) {
        // Half a session helps nobody, and the same name must be free for the next try.
        await session.client.logout(true).catch(() => {});
        endSession(session.name);
        throw error;
    }
}

// Signs in as a person does who comes back: the first time identity and phrase are set up, later the phrase makes the
// new device one of theirs. Whatever an interrupted first time left is begun anew.
export async function signIn(args) {
    required(args, "user", "phrase", "homeserver");
    const session = await login(args);
    if (await session.client.secretStorage.getKey()) await openWithPhrase(session, args);
    else if (session.crossSigned) await setupRecovery(session, args);
    else await resetIdentity(session, args);
    return session.describe();
}

async function openWithPhrase(session, { phrase }) {
    const { client, crypto } = session;
    const stored = await client.secretStorage.getKey();
    if (!stored) throw new Error(`${session.userId} has no secret storage`);
    const [keyId, info] = stored;
    if (!info.passphrase) throw new Error(`the secret storage key ${keyId} of ${session.userId} takes no phrase`);
    const { salt, iterations, bits } = info.passphrase;
    const key = await deriveRecoveryKeyFromPassphrase(phrase, salt, iterations, bits);
    if (!(await client.secretStorage.checkKey(key, info))) {
        throw new Error(`the phrase does not open the secret storage of ${session.userId}`);
    }
    session.secretStorageKeys.set(keyId, key);
    await crypto.bootstrapCrossSigning({
        authUploadDeviceSigningKeys: () => {
            // Reached only if the stored keys are not those on the server: to replace them would hide that.
            throw new Error(`the cross-signing keys in ${session.userId}'s secret storage are not the current ones`);
        },
    });
    await session.whenCrossSigned();
    const check = await crypto.checkKeyBackupAndEnable();
    if (!check) return { backupVersion: null, backupTrusted: false, imported: 0, total: 0 };
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const { imported, total } = await crypto.restoreKeyBackup();
    const trust = await crypto.isKeyBackupTrusted(check.backupInfo);
    return { backupVersion: check.backupInfo.version, backupTrusted: trust.trusted, imported, total };
}

// Asked of the homeserver: the SDK remembers what it heard at the start.
async function backup({ client }) {
    try {
        const info = await client.http.authedRequest("GET", "/room_keys/version", undefined, undefined, {
            prefix: "/_matrix/client/v3",
        });
        return { version: info.version, count: info.count ?? 0 };
    } catch (error) {
        if (error.httpStatus === 404) return { version: null, count: 0 };
        throw error;
    }
}

// The SDK goes on with this after it has said that the backup is there.
async function whenBackupIsActive(session, args) {
    const version = await poll(
        async () => (await session.crypto.getActiveSessionBackupVersion()) ?? undefined, patience(args), 50,
    );
    if (version === undefined) throw new Error(`the key backup of ${session.userId} was made but does not start`);
    return backup(session);
}

// The SDK uploads keys some seconds after they were made.
async function waitForBackup(session, args) {
    required(args, "count");
    let last;
    const found = await poll(async () => {
        last = await backup(session);
        return last.count >= args.count ? true : undefined;
    }, patience(args), 300);
    if (!found) throw new Error(`the key backup of ${session.userId} holds ${last.count} keys, not ${args.count}`);
    return last;
}

// What a person does who lost everything: new cross-signing keys, no secret storage, another key backup.
async function resetIdentity(session, args) {
    if (args.password !== undefined) session.password = args.password;
    await session.crypto.resetEncryption(session.authenticate);
    session.secretStorageKeys.clear();
    const made = await (args.phrase === undefined ? whenBackupIsActive : setupRecovery)(session, args);
    await session.whenCrossSigned();
    return { ...session.describe(), ...made };
}

async function deleteBackup(session) {
    const { version } = await backup(session);
    if (version === null) throw new Error(`${session.userId} has no key backup`);
    await session.crypto.deleteKeyBackupVersion(version);
    return { version };
}

async function deleteDevice(session, args) {
    required(args, "device");
    if (args.password !== undefined) session.password = args.password;
    await session.authenticate((auth) => session.client.deleteDevice(args.device, auth ?? undefined));
}

// How this user's client sees somebody's devices: what is not signed by its owner gets no keys.
async function trust(session, { target = session.userId }) {
    const { crypto } = session;
    const devices = (await crypto.getUserDeviceInfo([target], true)).get(target) ?? new Map();
    const status = await crypto.getUserVerificationStatus(target);
    const seen = {};
    for (const id of devices.keys()) {
        seen[id] = { signedByOwner: (await crypto.getDeviceVerificationStatus(target, id))?.signedByOwner ?? false };
    }
    return {
        hasCrossSigning: await crypto.userHasCrossSigningKeys(target, true),
        needsApproval: status.needsUserApproval,
        devices: seen,
    };
}

export const operations = {
    setupRecovery,
    backup,
    waitForBackup,
    resetIdentity,
    deleteBackup,
    deleteDevice,
    trust,
    approveIdentity: async ({ crypto }, { target }) => void (await crypto.pinCurrentUserIdentity(target)),
    devices: async ({ client }) => ({
        devices: (await client.getDevices()).devices.map(({ device_id: device, display_name: name = null }) => ({
            device,
            name,
        })),
    }),
};
