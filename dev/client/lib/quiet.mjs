// Standard output carries answers only, and the SDK and its WebAssembly write much to the console: so all of that goes
// to standard error, and only if it was asked for. Imported first, because the SDK takes the console's functions early.

const shown = { error: "error", warn: "warn", info: "info", log: "debug", debug: "debug", trace: "debug" };
const order = ["error", "warn", "info", "debug"];
const wanted = order.indexOf(process.env.EMS_CLIENT_LOG ?? "none");

for (const [name, level] of Object.entries(shown)) {
    console[name] = (...parts) => {
        if (order.indexOf(level) > wanted) return;
        const text = parts.map((part) => (typeof part === "string" ? part : (part?.message ?? String(part)))).join(" ");
        process.stderr.write(`${level}: ${text}\n`);
    };
}
