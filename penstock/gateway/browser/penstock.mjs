// @ts-check
/**
 * Reads the streams of a Penstock gateway in a browser, or in Node 22 and newer.
 *
 * Many streams come over one WebSocket, or each by `fetch` as server-sent events; also if a WebSocket cannot be had, such as
 * behind a proxy that refuses it. A connection that is cut is made again, and every stream goes on after its last event:
 * none is lost, none comes twice. The licence is MIT; see LICENSE.
 *
 *     const client = new Penstock();
 *     const stream = await client.open({ model: 'gpt-4.1-mini', input: 'Hello' });
 *     for await (const event of stream) if (event.type === 'token') print(event.text);
 *
 * @module
 */

/**
 * What a client can be told.
 *
 * @typedef {object} PenstockOptions
 * @property {string | URL} [url] The address of the gateway. By default, that from which this module was loaded; a bundled
 *   module must be given it.
 * @property {string | (() => string | Promise<string>)} [key] The API key, or a function that is asked for it for each
 *   connection and request. Without one, none is sent.
 * @property {'websocket' | 'sse'} [transport] How streams are read; `'websocket'` by default. Over HTTP/1.1, a browser has
 *   at most six connections to a host, and `'sse'` uses one for each stream.
 * @property {number} [fallback] How many WebSockets in a row may end before their first message: 3 by default, at least 2. After
 *   that, if the gateway has answered an ordinary request meanwhile, streams are read by server-sent events. A new client
 *   begins with a WebSocket again, and so does reading that begins after the browser was offline. `Infinity`: never.
 * @property {number} [window] How many bytes of each stream, about, may wait to be taken: 262,144 by default, at least 1,000.
 *   What comes after that waits at the gateway. One event may be larger.
 * @property {number} [patience] Milliseconds without a sign of life after which a connection is given up and made again:
 *   45,000 by default. It must be longer than `gateway.heartbeat`.
 * @property {number} [firstPause] Milliseconds before the first new attempt, about: 250 by default. Each further pause is
 *   twice as long.
 * @property {number} [longestPause] The longest of these pauses in milliseconds: 10,000 by default.
 * @property {number} [attempts] How often in a row a connection is tried before the stream fails with the code
 *   `unreachable`; without an end by default.
 * @property {number} [requestAttempts] How often a request is tried: 5 times by default.
 * @property {AbortSignal} [signal] Closes the client.
 */

/**
 * Where and how a stream is read.
 *
 * @typedef {object} ReadOptions
 * @property {number} [after] The number of the last event that is known: reading goes on after it. 0 by default, which is
 *   the beginning.
 * @property {string} [epoch] The epoch that this number is of. If the stream has another one, an event `gap` comes first.
 * @property {string} [text] The text up to that event, for `PenstockStream.text`; `reasoning` and `refusal` alike.
 * @property {string} [reasoning]
 * @property {string} [refusal]
 * @property {string} [ticket] A ticket of `Penstock.ticket`. The stream is then read by server-sent events without a key.
 * @property {AbortSignal} [signal] Ends the reading: iteration then throws the signal's reason.
 * @property {(state: Connection) => void} [onconnection] Called when `PenstockStream.connection` changes.
 */

/** @typedef {'connecting' | 'open' | 'waiting' | 'closed'} Connection `waiting`: before a new attempt. */

/**
 * A piece of text. `part` counts the parts of an answer, if it has more than one. In a stream that is made from several,
 * `origin` says from which.
 *
 * @typedef {{ sid: string, seq: number, type: 'token', kind: 'text' | 'reasoning' | 'refusal', text: string, part?: number,
 *   phase?: string, origin?: string }} TokenEvent
 */
/**
 * Everything so far, in place of all events before it.
 *
 * @typedef {{ sid: string, seq: number, type: 'snapshot', replaces: true, text: string, reasoning: string, refusal: string,
 *   parts: { kind: 'text' | 'reasoning' | 'refusal', start: number, end: number, origin?: string | null }[],
 *   [field: string]: any }} SnapshotEvent
 */
/**
 * The answer begins again: what came before is void; with an `origin`, only what came from there.
 *
 * @typedef {{ sid: string, seq: number, type: 'reset', reason: string, origin?: string, [field: string]: any }} ResetEvent
 */
/**
 * The stream is another one than before, such as after the gateway was started again. Its events follow from the beginning.
 *
 * @typedef {{ sid: string, type: 'gap', reason: 'epoch', epoch: string }} GapEvent
 */
/**
 * The last event. A completed stream has a `text` and a `finish_reason`, a failed one an `error` and a `partial`, a cancelled
 * one a `reason` and a `partial`.
 *
 * @typedef {{ sid: string, seq: number, type: 'end', outcome: 'completed' | 'failed' | 'cancelled', text?: string,
 *   partial?: string, finish_reason?: string, reason?: string, error?: { type: string, code: string, message: string },
 *   usage?: any, [field: string]: any }} EndEvent
 */
/**
 * Any other event: a call of a tool, a citation … The documentation of the gateway has their names.
 *
 * @typedef {{ sid: string, seq: number, type: 'tool_call_started' | 'tool_call_delta' | 'tool_call_completed' |
 *   'tool_execution_started' | 'tool_approval_requested' | 'tool_progress' | 'tool_result' | 'stream_started' | 'citation' |
 *   'server_tool_call' | 'server_tool_result' | 'media_part' | 'logprobs' | 'reasoning_block_closed' | 'progress' |
 *   'origin_ended' | 'stall_detected' | 'loop_detected' | 'provider_event', [field: string]: any }} OtherEvent
 */
/** @typedef {TokenEvent | SnapshotEvent | ResetEvent | GapEvent | EndEvent | OtherEvent} PenstockEvent */

/**
 * What is read so far. Give it to `Penstock.read` to go on from there, also after a reload of the page.
 *
 * @typedef {{ id: string, after: number, epoch: string, text: string, reasoning: string, refusal: string }} Snapshot
 */

const LONGEST_CONNECTING = 10_000;
/** @type {Record<string, number>} */
const STATUSES = {
  invalid_request_error: 400, authentication_error: 401, permission_error: 403, not_found_error: 404, gone: 410,
  rate_limit_error: 429, server_error: 500,
};
/** @type {Record<string, EndEvent['outcome']>} */
const OUTCOMES = { StreamCompleted: 'completed', StreamFailed: 'failed', StreamCancelled: 'cancelled' };
const RETRIED = new Set([408, 425, 429, 502, 503, 504]);
const PASSING = new Set(['draining', 'too_slow']); // reasons of a cut after which reading goes on

/** An error that the gateway has told, or that there is no gateway. */
export class PenstockError extends Error {
  /**
   * @param {{ message?: string, status?: number, type?: string, code?: string, param?: string, retryAfter?: number }} about
   */
  constructor({ message, status = 0, type = 'server_error', code = 'unknown', param, retryAfter }) {
    super(message || code);
    this.name = 'PenstockError';
    /** The HTTP status, or that which the error would have; 0: there was no answer. */
    this.status = status;
    this.type = type;
    /** What has happened: `stream_not_found`, `invalid_api_key`, `unreachable` … */
    this.code = code;
    /** The field of the request that is wrong. */
    this.param = param;
    /** Milliseconds to wait before the next attempt. */
    this.retryAfter = retryAfter;
  }
}

/** The streams of one gateway. Close it when it is no longer needed. */
export class Penstock {
  #url;
  #key;
  #transport;
  #socket;
  #requestAttempts;
  #hasFallenBack = false; // to server-sent events
  #ends = new AbortController();
  /** @type {Map<string, PenstockStream>} */
  #streams = new Map();

  /** @param {PenstockOptions} [options] */
  constructor(options = {}) {
    const { url = new URL('.', import.meta.url), key, transport = 'websocket', signal } = options;
    const { window = 262_144, patience = 45_000, firstPause = 250, longestPause = 10_000, attempts = Infinity,
      requestAttempts = 5, fallback = 3 } = options;
    if (transport !== 'websocket' && transport !== 'sse') throw new TypeError("transport must be 'websocket' or 'sse'.");
    for (const [name, value, least] of /** @type {[string, number, number][]} */ ([
      ['window', window, 1_000], ['patience', patience, 1], ['firstPause', firstPause, 0],
      ['longestPause', longestPause, firstPause], ['attempts', attempts, 1], ['requestAttempts', requestAttempts, 1],
      ['fallback', fallback, 2],
    ])) {
      if (!(value >= least)) throw new RangeError(`${name} must be a number from ${least}.`);
    }
    this.#url = new URL(url, globalThis.location?.href);
    if (!this.#url.pathname.endsWith('/')) this.#url.pathname += '/';
    this.#key = key;
    this.#transport = transport;
    /** @internal @readonly */
    this._limits = { window: Math.floor(window), patience, firstPause, longestPause, attempts, fallback };
    this.#requestAttempts = requestAttempts;
    this.#socket = new Socket(this);
    globalThis.addEventListener?.('online', this.#online);
    globalThis.document?.addEventListener('visibilitychange', this.#hurry);
    if (signal?.aborted) this.close();
    else signal?.addEventListener('abort', () => this.close(), { signal: this.#ends.signal });
  }

  /**
   * Open a stream, as `POST /v1/streams` does, and read it. The request is sent again if there is no answer, and opens one
   * stream all the same.
   *
   * @param {Record<string, any>} body The fields of the request: `model`, `messages` or `input` …
   * @param {{ idempotencyKey?: string, signal?: AbortSignal, onconnection?: ReadOptions['onconnection'] }} [options]
   *   `idempotencyKey`: of your own, at most 256 characters; by default a random one.
   * @returns {Promise<PenstockStream>}
   */
  async open(body, { idempotencyKey = randomText(), ...options } = {}) {
    const headers = { 'idempotency-key': idempotencyKey };
    const made = await this.request('POST', 'v1/streams', { body, headers, signal: options.signal });
    return this.read(made.stream_id, { ...options, epoch: made.epoch });
  }

  /**
   * Read a stream. Reading begins at once. A client reads a stream only once at a time.
   *
   * @param {string} id
   * @param {ReadOptions} [options] Also a snapshot of the same stream, see `PenstockStream.snapshot`.
   * @returns {PenstockStream}
   */
  read(id, options = {}) {
    if (this.isClosed) throw new PenstockError({ message: 'The client is closed.', code: 'closed' });
    if (this.#streams.has(id)) {
      throw new PenstockError({ message: `This client already reads the stream ${id}.`, code: 'already_read' });
    }
    const stream = new PenstockStream(this, id, options);
    if (stream.connection === 'closed') return stream; // its signal has been aborted
    this.#streams.set(id, stream);
    if (this.transport === 'websocket' && options.ticket === undefined) this.#socket.add(stream);
    else void readEvents(this, stream, options.ticket);
    return stream;
  }

  /**
   * Make a ticket by which one stream can be read without the key; see `ReadOptions.ticket`. It must be used within a minute,
   * and is then good until the stream ends.
   *
   * @param {string} id
   * @returns {Promise<{ ticket: string, url: string }>} `url` is that for an `EventSource`.
   */
  async ticket(id) {
    const { ticket } = await this.request('POST', `${pathOf(id)}/tickets`);
    return { ticket, url: this._address(`${pathOf(id)}/events?ticket=${encodeURIComponent(ticket)}`).href };
  }

  /**
   * What the gateway knows of a stream: its state and statistics.
   *
   * @param {string} id
   * @returns {Promise<any>}
   */
  show(id) { return this.request('GET', pathOf(id)); }

  /** @param {string} id @returns {Promise<any>} */
  pause(id) { return this.request('POST', `${pathOf(id)}/pause`); }

  /** @param {string} id @returns {Promise<any>} */
  resume(id) { return this.request('POST', `${pathOf(id)}/resume`); }

  /**
   * End a stream. It has no effect on one that has ended.
   *
   * @param {string} id
   * @param {string} [reason] At most 1,000 characters.
   * @returns {Promise<any>}
   */
  cancel(id, reason) { return this.request('POST', `${pathOf(id)}/cancel`, { body: reason === undefined ? {} : { reason } }); }

  /**
   * Decide on a call of a tool that waits for it.
   *
   * @param {string} id Of the stream.
   * @param {string} callId
   * @param {boolean} approve
   * @param {string} [reason]
   * @returns {Promise<any>}
   */
  decide(id, callId, approve, reason) {
    const body = reason === undefined ? { approve } : { approve, reason };
    return this.request('POST', `${pathOf(id)}/approvals/${encodeURIComponent(callId)}`, { body });
  }

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
  async request(method, path, { body, headers = {}, signal, isOnce = false } = {}) {
    const pauses = new Pauses({ ...this._limits, attempts: isOnce ? 1 : this.#requestAttempts });
    for (;;) {
      const attempt = new Attempt(this._limits.patience, [this.#ends.signal, signal]);
      /** @type {unknown} */
      let failure;
      try {
        const response = await fetch(this._address(path), {
          method,
          headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...(await this._bearer()) },
          body: body === undefined ? undefined : JSON.stringify(body),
          signal: attempt.signal,
        });
        if (!response.ok) throw await errorOf(response);
        // Of plain HTTP, browsers take headers that were cut off for whole ones: a body must be there, or the status be 204.
        return response.status === 204 ? undefined : JSON.parse(await response.text());
      } catch (error) {
        failure = error;
      } finally {
        attempt.close();
      }
      signal?.throwIfAborted();
      if (this.isClosed) throw new PenstockError({ message: 'The client is closed.', code: 'closed' });
      await pauses.wait(failure, [this.#ends.signal, signal]);
    }
  }

  /** How a stream that is read from now on is read: as the option says, unless a WebSocket cannot be had. */
  get transport() {
    return this.#hasFallenBack || globalThis.WebSocket === undefined ? 'sse' : this.#transport;
  }

  /** Whether it is closed. */
  get isClosed() { return this.#ends.signal.aborted; }

  /** Close all connections, and end the reading of all streams. The streams themselves go on as `on_orphan` says. */
  close() {
    if (this.isClosed) return;
    this.#ends.abort(new PenstockError({ message: 'The client is closed.', code: 'closed' }));
    for (const stream of [...this.#streams.values()]) stream.close();
    this.#socket.close();
    globalThis.removeEventListener?.('online', this.#online);
    globalThis.document?.removeEventListener('visibilitychange', this.#hurry);
  }

  #online = () => {
    this.#hasFallenBack = false; // the network may be another one
    this.#hurry();
  };

  #hurry = () => {
    if (globalThis.document?.hidden) return;
    this.#socket.hurry();
    for (const stream of this.#streams.values()) stream._hurry?.();
  };

  /** @internal @param {string} path */
  _address(path) { return new URL(path, this.#url); }

  /** @internal @returns {Promise<string | undefined>} */
  async _secret() {
    try {
      return typeof this.#key === 'function' ? await this.#key() : this.#key;
    } catch (cause) {
      const about = { message: 'The key cannot be had.', status: 401, type: 'authentication_error', code: 'no_key' };
      throw Object.assign(new PenstockError(about), { cause });
    }
  }

  /** @internal @returns {Promise<Record<string, string>>} */
  async _bearer() {
    const key = await this._secret();
    return key === undefined ? {} : { authorization: `Bearer ${key}` };
  }

  /** @internal Whether the gateway answers an ordinary request. @returns {Promise<boolean>} */
  async _answers() {
    const attempt = new Attempt(Math.min(this._limits.patience, LONGEST_CONNECTING), [this.#ends.signal]);
    try {
      const { ok, status } = await fetch(this._address('live'), { signal: attempt.signal, cache: 'no-store' });
      return ok || status === 404; // a proxy may pass on only some paths
    } catch {
      return false;
    } finally {
      attempt.close();
    }
  }

  /** @internal Read by server-sent events from now on, and go on so with these. @param {PenstockStream[]} streams */
  _fallBack(streams) {
    this.#hasFallenBack = true;
    for (const stream of streams) void readEvents(this, stream, undefined);
  }

  /** @internal @param {PenstockStream} stream */
  _forget(stream) {
    if (this.#streams.get(stream.id) === stream) this.#streams.delete(stream.id);
    this.#socket.remove(stream);
  }

  /** @internal @param {PenstockStream} stream @param {number} size Of what was taken. */
  _taken(stream, size) { this.#socket.taken(stream, size); }
}

/**
 * A stream that is read. Iterate over it (`for await`), or call `each`; both get every event once, the last one is `end`.
 * Leaving the loop ends the reading.
 *
 * Iteration throws a `PenstockError` if the stream cannot be read: it is not there (status 404), the key is refused (401).
 *
 * @implements {AsyncIterableIterator<PenstockEvent>}
 */
export class PenstockStream {
  #client;
  /** @type {{ event: PenstockEvent, size: number }[]} */
  #waiting = [];
  #size = 0;
  /** @type {{ resolve: (result: IteratorResult<PenstockEvent, undefined>) => void, reject: (error: unknown) => void }[]} */
  #takers = [];
  /** @type {{ error: unknown } | null} */
  #failure = null;
  #isOver = false;
  /** @type {(() => void)[]} */
  #whenRoom = [];
  /** @type {{ kind: string, origin: string | undefined, text: string }[]} */
  #texts;
  #ends = new AbortController();
  #onconnection;

  /** @internal @param {Penstock} client @param {string} id @param {ReadOptions} options */
  constructor(client, id, options) {
    const { after = 0, epoch = '', signal } = options;
    if (!Number.isSafeInteger(after) || after < 0) throw new RangeError('after must be a whole number from 0.');
    this.#client = client;
    /** @readonly */
    this.id = id;
    /** Which log of the stream `seq` counts in: another one after the gateway was started again. `''` until it is known. */
    this.epoch = epoch;
    /** The number of the last event that was taken. */
    this.seq = after;
    /** @type {EndEvent | null} The last event, once it was taken. */
    this.end = null;
    /** @type {Connection} */
    this.connection = 'connecting';
    /** @internal The last event that has come. */
    this._received = { epoch, seq: after };
    /** @internal Whether the gateway has nothing more to send. */
    this._isComplete = false;
    /** @internal @type {(() => void) | undefined} Make the next attempt now. */
    this._hurry = undefined;
    this.#onconnection = options.onconnection;
    const known = ['text', 'reasoning', 'refusal'].map((kind) => (
      { kind, origin: undefined, text: options[/** @type {'text'} */ (kind)] ?? '' }));
    this.#texts = after > 0 ? known.filter((one) => one.text !== '') : [];
    if (signal?.aborted) this._fail(signal.reason, true);
    else signal?.addEventListener('abort', () => this._fail(signal.reason, true), { signal: this.#ends.signal });
  }

  /** The text of the answer, as far as it was taken. */
  get text() { return this.#joined('text'); }
  get reasoning() { return this.#joined('reasoning'); }
  get refusal() { return this.#joined('refusal'); }

  /** What was taken so far. @returns {Snapshot} */
  snapshot() {
    const { id, seq: after, epoch, text, reasoning, refusal } = this;
    return { id, after, epoch, text, reasoning, refusal };
  }

  /** Have the stream send nothing until `resume`. @returns {Promise<any>} */
  pause() { return this.#client.pause(this.id); }
  /** @returns {Promise<any>} */
  resume() { return this.#client.resume(this.id); }
  /** End the stream; its last event says so. @param {string} [reason] @returns {Promise<any>} */
  cancel(reason) { return this.#client.cancel(this.id, reason); }

  /**
   * Call a function with every event, one after the other. If it returns a promise, the next event waits for that.
   *
   * @param {(event: PenstockEvent) => unknown} call
   * @returns {Promise<EndEvent | null>} The last event; null if the reading was closed before.
   */
  async each(call) {
    for await (const event of this) await call(event);
    return this.end;
  }

  /** End the reading. What was not taken is dropped. The stream itself goes on as its `on_orphan` says. */
  close() { this.#over(null, true); }

  [Symbol.asyncIterator]() { return this; }

  /** @returns {Promise<IteratorResult<PenstockEvent, undefined>>} */
  next() {
    const first = this.#waiting.shift();
    if (first !== undefined) {
      this.#take(first);
      return Promise.resolve({ done: false, value: first.event });
    }
    if (this.#failure !== null) {
      const { error } = this.#failure;
      this.#failure = null; // thrown once, as generators do
      return Promise.reject(error);
    }
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
  }

  /** @returns {Promise<IteratorResult<PenstockEvent, undefined>>} */
  return() {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  // --- for the connections ---------------------------------------------------------------------------------------

  /** @internal Aborted when nothing more is to be read. */
  get _signal() { return this.#ends.signal; }

  /** @internal About how many bytes wait to be taken. */
  get _size() { return this.#size; }

  /** @internal @param {Connection} state */
  _connection(state) {
    if (this.connection === state || this.connection === 'closed') return;
    this.connection = state;
    this.#onconnection?.(state);
  }

  /** @internal @param {string} epoch Of what comes. */
  _known(epoch) {
    if (this._received.epoch !== '') return; // another one comes with a gap
    this._received.epoch = epoch;
    this.epoch = epoch;
  }

  /** @internal Drop what waits to be taken, and begin again after what was taken. */
  _rewind() {
    this.#waiting = [];
    this.#size = 0;
    this._received = { epoch: this.epoch, seq: this.seq };
  }

  /** @internal @param {PenstockEvent} event */
  _push(event) {
    if (this.#isOver) return;
    this._received = event.type === 'gap' ? { epoch: event.epoch, seq: 0 } : { ...this._received, seq: event.seq };
    const one = { event, size: sizeOf(event) };
    const taker = this.#takers.shift();
    if (taker === undefined) {
      this.#waiting.push(one);
      this.#size += one.size;
    }
    if (event.type === 'end') this._finish();
    if (taker === undefined) return;
    this.#size += one.size;
    this.#take(one);
    taker.resolve({ done: false, value: event });
  }

  /** @internal @param {unknown} error @param {boolean} [isAtOnce] Whether what waits to be taken is dropped. */
  _fail(error, isAtOnce = false) { this.#over({ error }, isAtOnce); }

  /** @internal Nothing follows. */
  _finish() {
    this._isComplete = true;
    this.#over(null, false);
  }

  /** @internal Resolves when there is room for more, or nothing more is to be read. @returns {Promise<void>} */
  _room() {
    if (this.#isOver || this.#size < this.#client._limits.window) return Promise.resolve();
    return new Promise((resolve) => this.#whenRoom.push(resolve));
  }

  // --- within ----------------------------------------------------------------------------------------------------

  /** @param {{ error: unknown } | null} failure @param {boolean} isAtOnce */
  #over(failure, isAtOnce) {
    if (isAtOnce) {
      this.#waiting = [];
      this.#size = 0;
    }
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure = failure;
    this.#ends.abort();
    this._connection('closed');
    this.#client._forget(this);
    for (const resolve of this.#whenRoom.splice(0)) resolve();
    for (const taker of this.#takers.splice(0)) this.next().then(taker.resolve, taker.reject);
  }

  /** @param {{ event: PenstockEvent, size: number }} one */
  #take({ event, size }) {
    this.#size -= size;
    this.#tell(event);
    this.#client._taken(this, size);
    if (this.#size < this.#client._limits.window) for (const resolve of this.#whenRoom.splice(0)) resolve();
  }

  /** @param {PenstockEvent} event */
  #tell(event) {
    if (event.type === 'gap') this.epoch = event.epoch;
    this.seq = event.type === 'gap' ? 0 : event.seq;
    if (event.type === 'token') {
      const last = this.#texts.at(-1);
      if (last !== undefined && last.kind === event.kind && last.origin === event.origin) last.text += event.text;
      else this.#texts.push({ kind: event.kind, origin: event.origin, text: event.text });
    } else if (event.type === 'snapshot') {
      this.#texts = textsOf(event);
    } else if (event.type === 'reset') {
      this.#texts = event.origin === undefined ? [] : this.#texts.filter((one) => one.origin !== event.origin);
    } else if (event.type === 'gap') {
      this.#texts = [];
    } else if (event.type === 'end') {
      this.end = event;
    }
  }

  /** @param {string} kind */
  #joined(kind) { return this.#texts.filter((one) => one.kind === kind).map((one) => one.text).join(''); }
}

/** The WebSocket of a client: there is one while streams are read, and it is made again when it is cut. */
class Socket {
  #client;
  /** @type {Map<string, Reading>} */
  #readings = new Map();
  /** @type {WebSocket | null} */
  #socket = null;
  #isOpen = false;
  #number = 0;
  #heard = 0;
  #asked = 0; // when a sign of life was asked for; 0: it has come
  #attempt = {}; // another one for each connection
  #hasHeard = false; // whether a message has come over this connection
  #refused = 0; // how many in a row have ended before one came
  #isReachable = false; // whether the gateway has answered a request meanwhile
  #pauses;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #again;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch;

  /** @param {Penstock} client */
  constructor(client) {
    this.#client = client;
    this.#pauses = new Pauses(client._limits);
  }

  /** @param {PenstockStream} stream */
  add(stream) {
    const reading = { stream, ref: 0, unacknowledged: 0 };
    this.#readings.set(stream.id, reading);
    if (this.#isOpen) this.#subscribe(reading);
    else if (this.#socket === null && this.#again === undefined) void this.#connect();
  }

  /** @param {PenstockStream} stream */
  remove(stream) {
    const reading = this.#readings.get(stream.id);
    if (reading?.stream !== stream) return;
    this.#readings.delete(stream.id);
    if (!stream._isComplete && this.#isOpen) this.#post({ op: 'unsubscribe', sid: stream.id });
    if (this.#readings.size === 0) {
      clearTimeout(this.#again);
      this.#again = undefined;
      if (!this.#isOpen) this.#drop();
    }
  }

  /** Give back the credit of what was taken. @param {PenstockStream} stream @param {number} size */
  taken(stream, size) {
    const reading = this.#readings.get(stream.id);
    if (reading?.stream !== stream || !this.#isOpen) return;
    reading.unacknowledged += size;
    if (reading.ref === 0 && (stream._size === 0 || reading.unacknowledged >= this.#client._limits.window / 4)) {
      reading.unacknowledged = 0;
      this.#post({ op: 'ack', sid: stream.id, seq: stream.seq });
    }
  }

  /** Try again now, if it waits to. */
  hurry() {
    if (this.#again === undefined) return;
    clearTimeout(this.#again);
    this.#again = undefined;
    void this.#connect();
  }

  close() {
    this.#drop();
    clearTimeout(this.#again);
  }

  async #connect() {
    const { patience } = this.#client._limits;
    this.#again = undefined;
    this.#say('connecting');
    const attempt = (this.#attempt = {});
    let key;
    try {
      key = await this.#client._secret();
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (this.#attempt !== attempt || this.#readings.size === 0) return;
    const url = this.#client._address('v1/ws');
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    this.#hasHeard = false;
    let socket;
    try {
      socket = this.#socket = new WebSocket(url, 'penstock.v1');
    } catch { // the page may open none
      this.#closed(0, 'not allowed');
      return;
    }
    this.#heard = now();
    this.#asked = now();
    this.#watch = setInterval(() => this.#look(), Math.min(patience / 4, 5_000));
    socket.onopen = () => {
      this.#isOpen = true;
      if (key !== undefined) this.#post({ op: 'auth', key, ref: 'auth' });
      for (const reading of this.#readings.values()) this.#subscribe(reading);
      this.#ping();
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.#heard = now();
      this.#hasHeard = true;
      this.#refused = 0;
      this.#asked = 0;
      const message = JSON.parse(data);
      if (Array.isArray(message)) for (const event of message) this.#event(event);
      else this.#answer(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket === socket) this.#closed(code, reason);
    };
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    this.#drop();
    if (code === 1008) {
      const isKey = reason === 'not authenticated';
      const message = isKey ? 'The gateway has refused the API key, or none was given.' : `The gateway has refused: ${reason}`;
      const about = isKey ? { status: 401, type: 'authentication_error', code: 'invalid_api_key' }
        : { status: 403, type: 'permission_error', code: reason };
      this.#fail(new PenstockError({ message, ...about }));
    } else if (code === 4001) {
      const message = 'The API key has been revoked.';
      this.#fail(new PenstockError({ message, status: 401, type: 'authentication_error', code: 'key_revoked' }));
    } else if (code === 1009) {
      this.#fail(new PenstockError({ message: 'A message was too large.', status: 413, code: 'too_large' }));
    } else if (this.#readings.size > 0) {
      const { fallback, attempts } = this.#client._limits;
      const most = fallback < Infinity ? Math.min(fallback, attempts) : Infinity;
      if (!this.#hasHeard) this.#refused += 1;
      if (this.#refused >= most && this.#isReachable) this.#fallBack();
      else if (this.#refused >= most - 1) void this.#probe();
      else this.#wait();
    }
  }

  /** Make the next connection after a pause. */
  #wait() {
    const pause = this.#pauses.next();
    if (pause === null) this.#fail(unreachable());
    else {
      this.#say('waiting');
      this.#again = setTimeout(() => this.#connect(), pause);
    }
  }

  /** Ask whether the gateway can be reached at all, before the attempt that may be the last one. */
  async #probe() {
    const attempt = this.#attempt;
    this.#say('waiting');
    this.#isReachable = await this.#client._answers();
    if (this.#attempt === attempt && this.#readings.size > 0) this.#wait();
  }

  /** Have the streams read by server-sent events. */
  #fallBack() {
    const streams = [...this.#readings.values()].map(({ stream }) => stream);
    this.#readings.clear();
    this.#refused = 0;
    this.#client._fallBack(streams);
  }

  /** Leave the connection, if there is one. */
  #drop() {
    const socket = this.#socket;
    this.#attempt = {};
    this.#socket = null;
    this.#isOpen = false;
    clearInterval(this.#watch);
    socket?.close();
  }

  /** @param {unknown} error */
  #fail(error) {
    const readings = [...this.#readings.values()];
    this.#readings.clear();
    for (const { stream } of readings) stream._fail(error);
  }

  /** @param {Connection} state */
  #say(state) { for (const { stream } of [...this.#readings.values()]) stream._connection(state); }

  /** @param {Reading} reading */
  #subscribe(reading) {
    const { stream } = reading;
    stream._rewind(); // the gateway counts the whole window anew
    reading.ref = ++this.#number;
    reading.unacknowledged = 0;
    const { id: sid, epoch, seq: after } = stream;
    const { window } = this.#client._limits;
    this.#post({ op: 'subscribe', ref: reading.ref, sid, after, window, ...(epoch === '' ? {} : { epoch }) });
  }

  /** @param {any} message */
  #answer(message) {
    const reading = [...this.#readings.values()].find((one) => one.ref !== 0 && one.ref === message.ref);
    if (message.ref !== 'auth') this.#pauses.reset();
    if (reading === undefined) return;
    const { stream } = reading;
    reading.ref = 0;
    if (message.error !== undefined) {
      stream._fail(new PenstockError({ status: STATUSES[message.error.type] ?? 500, ...message.error }));
      return;
    }
    if (message.gap !== undefined) stream._push({ sid: stream.id, type: 'gap', reason: 'epoch', epoch: message.epoch });
    stream._known(message.epoch);
    stream._connection('open');
    if (message.at_end) stream._finish();
  }

  /** @param {any} event */
  #event(event) {
    const reading = this.#readings.get(event.sid);
    if (reading === undefined || reading.ref !== 0) return; // what comes before the answer is of an earlier subscription
    const { stream } = reading;
    if (event.type === 'cut') stream._fail(new PenstockError({ status: 500, code: event.code, message: event.message }));
    else stream._push(event);
  }

  /** Ask for a sign of life when there was none for long, and give the connection up when none comes. */
  #look() {
    const { patience } = this.#client._limits;
    const least = this.#isOpen ? patience : Math.min(patience, LONGEST_CONNECTING);
    if (this.#asked !== 0 && now() - this.#asked > (this.#isOpen ? patience / 2 : least)) {
      this.#closed(0, 'no sign of life');
    } else if (this.#isOpen && this.#asked === 0 && this.#readings.size > 0 && now() - this.#heard > patience / 2) {
      this.#ping();
    }
  }

  #ping() {
    this.#asked = now();
    this.#post({ op: 'ping', ref: 'ping' });
  }

  /** @param {Record<string, unknown>} message */
  #post(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}

/**
 * `ref`: of the subscription whose answer has not come; 0: it has. `unacknowledged`: how many bytes were taken since the
 * last acknowledgement.
 *
 * @typedef {{ stream: PenstockStream, ref: number, unacknowledged: number }} Reading
 */

/**
 * Read a stream by server-sent events until it ends.
 *
 * @param {Penstock} client
 * @param {PenstockStream} stream
 * @param {string | undefined} ticket
 */
async function readEvents(client, stream, ticket) {
  const pauses = new Pauses(client._limits);
  const signal = stream._signal;
  while (!signal.aborted) {
    stream._connection('connecting');
    /** @type {unknown} */
    let failure;
    try {
      if (await readOnce(client, stream, ticket, () => pauses.reset())) {
        stream._finish();
        return;
      }
    } catch (error) {
      failure = error;
    }
    if (signal.aborted) return;
    stream._connection('waiting');
    try {
      await pauses.wait(failure, [signal], (hurry) => { stream._hurry = hurry; });
    } catch (error) {
      if (!signal.aborted) stream._fail(error);
      return;
    }
  }
}

/**
 * One connection of `readEvents`. Returns whether the stream is at its end.
 *
 * @param {Penstock} client
 * @param {PenstockStream} stream
 * @param {string | undefined} ticket
 * @param {() => void} works Called when something has come.
 */
async function readOnce(client, stream, ticket, works) {
  const attempt = new Attempt(client._limits.patience, [stream._signal]);
  try {
    const { epoch, seq } = stream._received;
    const cursor = epoch === '' ? String(seq) : `${epoch}-${seq}`;
    const address = client._address(`${pathOf(stream.id)}/events`);
    address.searchParams.set('after', cursor);
    if (ticket !== undefined) address.searchParams.set('ticket', ticket);
    const headers = ticket === undefined ? await client._bearer() : {};
    const response = await fetch(address, { headers, signal: attempt.signal, cache: 'no-store' });
    if (response.status === 204) return true;
    if (!response.ok) throw await errorOf(response);
    const body = response.body;
    if (body === null) throw new PenstockError({ code: 'no_body', message: 'The response has no body.' });
    stream._connection('open');
    const decoder = new EventDecoder();
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      attempt.again();
      const { done, value } = await reader.read();
      attempt.rest();
      if (done) return false;
      for (const { id, name, data } of decoder.feed(value)) {
        works();
        await stream._room();
        take(stream, id, name, data);
      }
    }
  } finally {
    attempt.close();
  }
}

/** @param {PenstockStream} stream @param {string} id @param {string} name @param {string} text */
function take(stream, id, name, text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch (cause) {
    const about = { status: 500, code: 'malformed', message: `An event of the name ${name} is not JSON.` };
    throw Object.assign(new PenstockError(about), { cause });
  }
  if (name === 'cut') {
    const { code, message } = data;
    throw new PenstockError({ status: PASSING.has(code) ? 503 : code === 'key_revoked' ? 401 : 500, code, message });
  }
  if (name === 'gap') {
    stream._push({ sid: stream.id, type: 'gap', reason: data.reason, epoch: data.epoch });
    return;
  }
  if (id.includes('-')) stream._known(id.slice(0, id.lastIndexOf('-')));
  const more = name === 'end' ? { outcome: OUTCOMES[data.type] } : {};
  stream._push({ sid: stream.id, ...data, type: name, ...more });
}

/** Decodes server-sent events, in pieces that may end anywhere. @internal */
export class EventDecoder {
  /** @type {string[]} */
  #parts = []; // of a line that is not complete
  #isAfterReturn = false;
  #id = '';
  #name = '';
  /** @type {string[]} */
  #data = [];

  /**
   * @param {string} text
   * @returns {{ id: string, name: string, data: string }[]} The events that it completes.
   */
  feed(text) {
    const found = [];
    if (this.#isAfterReturn && text !== '') {
      if (text[0] === '\n') text = text.slice(1);
      this.#isAfterReturn = false;
    }
    if (text.endsWith('\r')) this.#isAfterReturn = true;
    const lines = text.split(/\r\n|\n|\r/);
    for (const [at, line] of lines.entries()) {
      this.#parts.push(line);
      if (at === lines.length - 1) break; // it goes on
      const event = this.#line(this.#parts.join(''));
      this.#parts = [];
      if (event !== null) found.push(event);
    }
    return found;
  }

  /** @param {string} line */
  #line(line) {
    if (line === '') {
      const event = this.#data.length === 0 ? null : { id: this.#id, name: this.#name || 'message', data: this.#data.join('\n') };
      this.#name = '';
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#name = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    return null;
  }
}

/** The pauses between attempts: each is twice as long as the one before, and a random part of that. */
class Pauses {
  #limits;
  #failed = 0;

  /** @param {{ firstPause: number, longestPause: number, attempts: number }} limits */
  constructor(limits) { this.#limits = limits; }

  /** The last attempt has worked. */
  reset() { this.#failed = 0; }

  /** The next pause in milliseconds; null: there is no further attempt. */
  next() {
    const { firstPause, longestPause, attempts } = this.#limits;
    this.#failed += 1;
    if (this.#failed >= attempts) return null;
    return Math.min(longestPause, firstPause * 2 ** (this.#failed - 1)) * (0.5 + Math.random() / 2);
  }

  /**
   * Wait before the next attempt. Throws the failure if there should be none, or the reason of a signal.
   *
   * @param {unknown} failure Of the last attempt; undefined: the connection was closed.
   * @param {(AbortSignal | undefined)[]} signals
   * @param {(hurry: (() => void) | undefined) => void} [offer] Called with what ends the pause, and at the end without.
   */
  async wait(failure, signals, offer = () => {}) {
    const error = failure instanceof PenstockError ? failure : null;
    // A status below 200 is what a browser makes of one that was cut off.
    if (error !== null && error.status >= 200 && !RETRIED.has(error.status)) throw error;
    const pause = this.next();
    if (pause === null) throw error ?? unreachable(failure);
    const ends = new AbortController();
    try {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, Math.max(pause, error?.retryAfter ?? 0));
        ends.signal.addEventListener('abort', () => clearTimeout(timer));
        for (const signal of signals) {
          if (signal?.aborted) reject(signal.reason);
          signal?.addEventListener('abort', () => reject(signal.reason), { signal: ends.signal });
        }
        offer(() => resolve(undefined));
      });
    } finally {
      ends.abort();
      offer(undefined);
    }
  }
}

/** One request: it is aborted when any of the signals is, or nothing comes for too long. */
class Attempt {
  #ends = new AbortController();
  #listening = new AbortController();
  #patience;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {number} patience @param {(AbortSignal | undefined)[]} signals */
  constructor(patience, signals) {
    this.#patience = patience;
    for (const signal of signals) {
      if (signal?.aborted) this.#ends.abort(signal.reason);
      signal?.addEventListener('abort', () => this.#ends.abort(signal.reason), { signal: this.#listening.signal });
    }
    this.again();
  }

  get signal() { return this.#ends.signal; }

  /** Begin to wait. */
  again() {
    this.rest();
    this.#timer = setTimeout(() => this.#ends.abort(new Error('No sign of life.')), this.#patience);
  }

  /** Nothing is waited for. */
  rest() { clearTimeout(this.#timer); }

  close() {
    this.rest();
    this.#listening.abort();
    this.#ends.abort(); // leaves what was not read
  }
}

/** @param {string} id */
function pathOf(id) { return `v1/streams/${encodeURIComponent(id)}`; }

/** @param {unknown} [cause] */
function unreachable(cause) {
  const error = new PenstockError({ message: 'The gateway cannot be reached.', code: 'unreachable' });
  if (cause !== undefined) error.cause = cause;
  return error;
}

/** @param {Response} response */
async function errorOf(response) {
  const { status, headers } = response;
  const wait = headers.get('retry-after-ms') ?? Number(headers.get('retry-after') ?? 0) * 1_000;
  const retryAfter = Number(wait) || undefined;
  const { error } = await response.json().catch(() => ({ error: null }));
  const message = `The gateway answers ${status}.`;
  return new PenstockError({ message, code: `status_${status}`, ...error, status, retryAfter });
}

/** The texts of a snapshot, by origin if it has several. @param {SnapshotEvent} event */
function textsOf(event) {
  /** @type {{ kind: string, origin: string | undefined, text: string }[]} */
  const whole = [];
  for (const kind of /** @type {const} */ (['text', 'reasoning', 'refusal'])) {
    const parts = event.parts.filter((part) => part.kind === kind);
    if (parts.some((part) => part.origin != null)) {
      const characters = [...event[kind]]; // of Unicode, in which places are counted
      for (const { start, end, origin } of parts) {
        whole.push({ kind, origin: origin ?? undefined, text: characters.slice(start, end).join('') });
      }
    } else if (event[kind]) {
      whole.push({ kind, origin: undefined, text: event[kind] });
    }
  }
  return whole;
}

/** About how many bytes an event has. @param {PenstockEvent} event */
function sizeOf(event) {
  return event.type === 'token' || event.type === 'tool_call_delta' ? 100 + event.text.length : JSON.stringify(event).length;
}

function now() { return performance.now(); }

function randomText() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
