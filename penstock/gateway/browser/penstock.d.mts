/** An error that the gateway has told, or that there is no gateway. */
export class PenstockError extends Error {
    /**
     * @param {{ message?: string, status?: number, type?: string, code?: string, param?: string, retryAfter?: number }} about
     */
    constructor({ message, status, type, code, param, retryAfter }: {
        message?: string;
        status?: number;
        type?: string;
        code?: string;
        param?: string;
        retryAfter?: number;
    });
    /** The HTTP status, or that which the error would have; 0: there was no answer. */
    status: number;
    type: string;
    /** What has happened: `stream_not_found`, `invalid_api_key`, `unreachable` … */
    code: string;
    /** The field of the request that is wrong. */
    param: string | undefined;
    /** Milliseconds to wait before the next attempt. */
    retryAfter: number | undefined;
}
/** The streams of one gateway. Close it when it is no longer needed. */
export class Penstock {
    /** @param {PenstockOptions} [options] */
    constructor(options?: PenstockOptions);
    /** @internal @readonly */
    readonly _limits: {
        window: number;
        patience: number;
        firstPause: number;
        longestPause: number;
        attempts: number;
        fallback: number;
    };
    /**
     * Open a stream, as `POST /v1/streams` does, and read it. The request is sent again if there is no answer, and opens one
     * stream all the same.
     *
     * @param {Record<string, any>} body The fields of the request: `model`, `messages` or `input` …
     * @param {{ idempotencyKey?: string, signal?: AbortSignal, onconnection?: ReadOptions['onconnection'] }} [options]
     *   `idempotencyKey`: of your own, at most 256 characters; by default a random one.
     * @returns {Promise<PenstockStream>}
     */
    open(body: Record<string, any>, { idempotencyKey, ...options }?: {
        idempotencyKey?: string;
        signal?: AbortSignal;
        onconnection?: ReadOptions["onconnection"];
    }): Promise<PenstockStream>;
    /**
     * Read a stream. Reading begins at once. A client reads a stream only once at a time.
     *
     * @param {string} id
     * @param {ReadOptions} [options] Also a snapshot of the same stream, see `PenstockStream.snapshot`.
     * @returns {PenstockStream}
     */
    read(id: string, options?: ReadOptions): PenstockStream;
    /**
     * Make a ticket by which one stream can be read without the key; see `ReadOptions.ticket`. It must be used within a minute,
     * and is then good until the stream ends.
     *
     * @param {string} id
     * @returns {Promise<{ ticket: string, url: string }>} `url` is that for an `EventSource`.
     */
    ticket(id: string): Promise<{
        ticket: string;
        url: string;
    }>;
    /**
     * What the gateway knows of a stream: its state and statistics.
     *
     * @param {string} id
     * @returns {Promise<any>}
     */
    show(id: string): Promise<any>;
    /** @param {string} id @returns {Promise<any>} */
    pause(id: string): Promise<any>;
    /** @param {string} id @returns {Promise<any>} */
    resume(id: string): Promise<any>;
    /**
     * End a stream. It has no effect on one that has ended.
     *
     * @param {string} id
     * @param {string} [reason] At most 1,000 characters.
     * @returns {Promise<any>}
     */
    cancel(id: string, reason?: string): Promise<any>;
    /**
     * Decide on a call of a tool that waits for it.
     *
     * @param {string} id Of the stream.
     * @param {string} callId
     * @param {boolean} approve
     * @param {string} [reason]
     * @returns {Promise<any>}
     */
    decide(id: string, callId: string, approve: boolean, reason?: string): Promise<any>;
    /**
     * Send any request to the gateway. It is sent again (`requestAttempts`) when there is no answer or the gateway asks
     * to wait (408, 429, 502, 503, 504); a `POST` of something that must not happen twice needs `isOnce`.
     *
     * @param {string} method
     * @param {string} path Relative to the gateway's address, such as `v1/models`.
     * @param {{ body?: any, headers?: Record<string, string>, signal?: AbortSignal, isOnce?: boolean }} [options] `isOnce`:
     *   it is not sent again.
     * @returns {Promise<any>} The answer's JSON; undefined if it has none.
     */
    request(method: string, path: string, { body, headers, signal, isOnce }?: {
        body?: any;
        headers?: Record<string, string>;
        signal?: AbortSignal;
        isOnce?: boolean;
    }): Promise<any>;
    /** How a stream that is read from now on is read: as the option says, unless a WebSocket cannot be had. */
    get transport(): "websocket" | "sse";
    /** Whether it is closed. */
    get isClosed(): boolean;
    /** Close all connections, and end the reading of all streams. The streams themselves go on as `on_orphan` says. */
    close(): void;
    /** @internal @param {string} path */
    _address(path: string): URL;
    /** @internal @returns {Promise<string | undefined>} */
    _secret(): Promise<string | undefined>;
    /** @internal @returns {Promise<Record<string, string>>} */
    _bearer(): Promise<Record<string, string>>;
    /** @internal Whether the gateway answers an ordinary request. @returns {Promise<boolean>} */
    _answers(): Promise<boolean>;
    /** @internal Read by server-sent events from now on, and go on so with these. @param {PenstockStream[]} streams */
    _fallBack(streams: PenstockStream[]): void;
    /** @internal @param {PenstockStream} stream */
    _forget(stream: PenstockStream): void;
    /** @internal @param {PenstockStream} stream @param {number} size Of what was taken. */
    _taken(stream: PenstockStream, size: number): void;
    #private;
}
/**
 * A stream that is read. Iterate over it (`for await`), or call `each`; both get every event once, the last one is `end`.
 * Leaving the loop ends the reading.
 *
 * Iteration throws a `PenstockError` if the stream cannot be read: it is not there (status 404), the key is refused (401).
 *
 * @implements {AsyncIterableIterator<PenstockEvent>}
 */
export class PenstockStream implements AsyncIterableIterator<PenstockEvent> {
    /** @internal @param {Penstock} client @param {string} id @param {ReadOptions} options */
    constructor(client: Penstock, id: string, options: ReadOptions);
    /** @readonly */
    readonly id: string;
    /** Which log of the stream `seq` counts in: another one after the gateway was started again. `''` until it is known. */
    epoch: string;
    /** The number of the last event that was taken. */
    seq: number;
    /** @type {EndEvent | null} The last event, once it was taken. */
    end: EndEvent | null;
    /** @type {Connection} */
    connection: Connection;
    /** @internal The last event that has come. */
    _received: {
        epoch: string;
        seq: number;
    };
    /** @internal Whether the gateway has nothing more to send. */
    _isComplete: boolean;
    /** @internal @type {(() => void) | undefined} Make the next attempt now. */
    _hurry: (() => void) | undefined;
    /** The text of the answer, as far as it was taken. */
    get text(): string;
    get reasoning(): string;
    get refusal(): string;
    /** What was taken so far. @returns {Snapshot} */
    snapshot(): Snapshot;
    /** Have the stream send nothing until `resume`. @returns {Promise<any>} */
    pause(): Promise<any>;
    /** @returns {Promise<any>} */
    resume(): Promise<any>;
    /** End the stream; its last event says so. @param {string} [reason] @returns {Promise<any>} */
    cancel(reason?: string): Promise<any>;
    /**
     * Call a function with every event, one after the other. If it returns a promise, the next event waits for that.
     *
     * @param {(event: PenstockEvent) => unknown} call
     * @returns {Promise<EndEvent | null>} The last event; null if the reading was closed before.
     */
    each(call: (event: PenstockEvent) => unknown): Promise<EndEvent | null>;
    /** End the reading. What was not taken is dropped. The stream itself goes on as its `on_orphan` says. */
    close(): void;
    /** @returns {Promise<IteratorResult<PenstockEvent, undefined>>} */
    next(): Promise<IteratorResult<PenstockEvent, undefined>>;
    /** @returns {Promise<IteratorResult<PenstockEvent, undefined>>} */
    return(): Promise<IteratorResult<PenstockEvent, undefined>>;
    /** @internal Aborted when nothing more is to be read. */
    get _signal(): AbortSignal;
    /** @internal About how many bytes wait to be taken. */
    get _size(): number;
    /** @internal @param {Connection} state */
    _connection(state: Connection): void;
    /** @internal @param {string} epoch Of what comes. */
    _known(epoch: string): void;
    /** @internal Drop what waits to be taken, and begin again after what was taken. */
    _rewind(): void;
    /** @internal @param {PenstockEvent} event */
    _push(event: PenstockEvent): void;
    /** @internal @param {unknown} error @param {boolean} [isAtOnce] Whether what waits to be taken is dropped. */
    _fail(error: unknown, isAtOnce?: boolean): void;
    /** @internal Nothing follows. */
    _finish(): void;
    /** @internal Resolves when there is room for more, or nothing more is to be read. @returns {Promise<void>} */
    _room(): Promise<void>;
    [Symbol.asyncIterator](): this;
    #private;
}
/** Decodes server-sent events, in pieces that may end anywhere. @internal */
export class EventDecoder {
    /**
     * @param {string} text
     * @returns {{ id: string, name: string, data: string }[]} The events that it completes.
     */
    feed(text: string): {
        id: string;
        name: string;
        data: string;
    }[];
    #private;
}
/**
 * `ref`: of the subscription whose answer has not come; 0: it has. `unacknowledged`: how many bytes were taken since the
 * last acknowledgement.
 */
export type Reading = {
    stream: PenstockStream;
    ref: number;
    unacknowledged: number;
};
/**
 * What a client can be told.
 */
export type PenstockOptions = {
    /**
     * The address of the gateway. By default, that from which this module was loaded; a bundled
     * module must be given it.
     */
    url?: string | URL | undefined;
    /**
     * The API key, or a function that is asked for it for each
     * connection and request. Without one, none is sent.
     */
    key?: string | (() => string | Promise<string>) | undefined;
    /**
     * How streams are read; `'websocket'` by default. Over HTTP/1.1, a browser has
     * at most six connections to a host, and `'sse'` uses one for each stream.
     */
    transport?: "websocket" | "sse" | undefined;
    /**
     * How many WebSockets in a row may end before their first message: 3 by default, at least 2. After
     * that, if the gateway has answered an ordinary request meanwhile, streams are read by server-sent events. A new client
     * begins with a WebSocket again, and so does reading that begins after the browser was offline. `Infinity`: never.
     */
    fallback?: number | undefined;
    /**
     * How many bytes of each stream, about, may wait to be taken: 262,144 by default, at least 1,000.
     * What comes after that waits at the gateway. One event may be larger.
     */
    window?: number | undefined;
    /**
     * Milliseconds without a sign of life after which a connection is given up and made again:
     * 45,000 by default. It must be longer than `gateway.heartbeat`.
     */
    patience?: number | undefined;
    /**
     * Milliseconds before the first new attempt, about: 250 by default. Each further pause is
     * twice as long.
     */
    firstPause?: number | undefined;
    /**
     * The longest of these pauses in milliseconds: 10,000 by default.
     */
    longestPause?: number | undefined;
    /**
     * How often in a row a connection is tried before the stream fails with the code
     * `unreachable`; without an end by default.
     */
    attempts?: number | undefined;
    /**
     * How often a request is tried: 5 times by default.
     */
    requestAttempts?: number | undefined;
    /**
     * Closes the client.
     */
    signal?: AbortSignal | undefined;
};
/**
 * Where and how a stream is read.
 */
export type ReadOptions = {
    /**
     * The number of the last event that is known: reading goes on after it. 0 by default, which is
     * the beginning.
     */
    after?: number | undefined;
    /**
     * The epoch that this number is of. If the stream has another one, an event `gap` comes first.
     */
    epoch?: string | undefined;
    /**
     * The text up to that event, for `PenstockStream.text`; `reasoning` and `refusal` alike.
     */
    text?: string | undefined;
    reasoning?: string | undefined;
    refusal?: string | undefined;
    /**
     * A ticket of `Penstock.ticket`. The stream is then read by server-sent events without a key.
     */
    ticket?: string | undefined;
    /**
     * Ends the reading: iteration then throws the signal's reason.
     */
    signal?: AbortSignal | undefined;
    /**
     * Called when `PenstockStream.connection` changes.
     */
    onconnection?: ((state: Connection) => void) | undefined;
};
/**
 * `waiting`: before a new attempt.
 */
export type Connection = "connecting" | "open" | "waiting" | "closed";
/**
 * A piece of text. `part` counts the parts of an answer, if it has more than one. In a stream that is made from several,
 * `origin` says from which.
 */
export type TokenEvent = {
    sid: string;
    seq: number;
    type: "token";
    kind: "text" | "reasoning" | "refusal";
    text: string;
    part?: number;
    phase?: string;
    origin?: string;
};
/**
 * Everything so far, in place of all events before it.
 */
export type SnapshotEvent = {
    sid: string;
    seq: number;
    type: "snapshot";
    replaces: true;
    text: string;
    reasoning: string;
    refusal: string;
    parts: {
        kind: "text" | "reasoning" | "refusal";
        start: number;
        end: number;
        origin?: string | null;
    }[];
    [field: string]: any;
};
/**
 * The answer begins again: what came before is void; with an `origin`, only what came from there.
 */
export type ResetEvent = {
    sid: string;
    seq: number;
    type: "reset";
    reason: string;
    origin?: string;
    [field: string]: any;
};
/**
 * The stream is another one than before, such as after the gateway was started again. Its events follow from the beginning.
 */
export type GapEvent = {
    sid: string;
    type: "gap";
    reason: "epoch";
    epoch: string;
};
/**
 * The last event. A completed stream has a `text` and a `finish_reason`, a failed one an `error` and a `partial`, a cancelled
 * one a `reason` and a `partial`.
 */
export type EndEvent = {
    sid: string;
    seq: number;
    type: "end";
    outcome: "completed" | "failed" | "cancelled";
    text?: string;
    partial?: string;
    finish_reason?: string;
    reason?: string;
    error?: {
        type: string;
        code: string;
        message: string;
    };
    usage?: any;
    [field: string]: any;
};
/**
 * Any other event: a call of a tool, a citation … The documentation of the gateway has their names.
 */
export type OtherEvent = {
    sid: string;
    seq: number;
    type: "tool_call_started" | "tool_call_delta" | "tool_call_completed" | "tool_execution_started" | "tool_approval_requested" | "tool_progress" | "tool_result" | "stream_started" | "citation" | "server_tool_call" | "server_tool_result" | "media_part" | "logprobs" | "reasoning_block_closed" | "progress" | "origin_ended" | "stall_detected" | "loop_detected" | "provider_event";
    [field: string]: any;
};
export type PenstockEvent = TokenEvent | SnapshotEvent | ResetEvent | GapEvent | EndEvent | OtherEvent;
/**
 * What is read so far. Give it to `Penstock.read` to go on from there, also after a reload of the page.
 */
export type Snapshot = {
    id: string;
    after: number;
    epoch: string;
    text: string;
    reasoning: string;
    refusal: string;
};
