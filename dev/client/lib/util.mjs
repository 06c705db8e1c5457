export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A task cannot be cancelled from here; it ends by its own deadlines, which follow `timeoutMs` too.
export async function withTimeout(task, ms, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what} took more than ${ms} ms`)), ms);
    });
    try {
        return await Promise.race([task, late]);
    } finally {
        clearTimeout(timer);
    }
}

// Asks until the answer is not undefined; undefined at the deadline.
export async function poll(question, ms, interval = 100) {
    const deadline = Date.now() + ms;
    for (;;) {
        const answer = await question();
        if (answer !== undefined) return answer;
        if (Date.now() >= deadline) return undefined;
        await sleep(interval);
    }
}

// Waiting inside an operation ends before the operation does, so that the message says what was waited for.
export const patience = (args) => Math.max(500, (args.timeoutMs ?? 60_000) - 1_000);

export function required(args, ...names) {
    for (const name of names) {
        if (args[name] === undefined || args[name] === null) throw new Error(`the argument ${name} is missing`);
    }
}

export function describeError(error) {
    const described = { message: error?.message ?? String(error) };
    if (error?.errcode) described.errcode = error.errcode;
    if (error?.httpStatus) described.status = error.httpStatus;
    if (error?.data?.retry_after_ms !== undefined) described.retry_after_ms = error.data.retry_after_ms;
    return described;
}
