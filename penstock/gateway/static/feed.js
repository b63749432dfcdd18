// The connection to the gateway: one WebSocket, topics that survive a cut, and the key of this tab.

const KEY = 'penstock-key';
const LONGEST = 5_000;

// A table of the server, as its snapshots and changes say.
export class Sheet {
  constructor() { this.columns = []; this.rows = new Map(); }
  take(snapshot) {
    this.columns = snapshot.columns;
    this.rows = new Map(snapshot.rows.map(([number, ...values]) => [number, this.#named(number, values)]));
  }
  apply(change) {
    for (const number of change.gone ?? []) this.rows.delete(number);
    for (const [number, ...values] of change.added ?? []) this.rows.set(number, this.#named(number, values));
    for (const [number, ...pairs] of change.rows ?? []) {
      const row = this.rows.get(number);
      if (!row) continue;
      const next = { ...row };
      for (let at = 0; at < pairs.length; at += 2) next[this.columns[pairs[at]]] = pairs[at + 1];
      this.rows.set(number, next);
    }
  }
  #named(number, values) {
    const row = { number };
    this.columns.forEach((name, at) => { row[name] = values[at]; });
    return row;
  }
  get list() { return [...this.rows.values()]; }
}

export class Feed {
  // State: 'connecting', 'open', 'lost' (it tries again), 'key' (a key is needed), 'refused' (it makes no sense to try).
  state = 'connecting';
  reason = '';
  #socket = null;
  #topics = new Map(); // by name: the function that takes its messages
  #streams = new Map(); // by stream id: the same, for events
  #answers = new Map();
  #watchers = new Set();
  #ref = 0;
  #wait = 250;
  #timer = null;

  constructor(url) {
    this.url = url;
    document.addEventListener('visibilitychange', () => (document.hidden ? this.#hide() : this.#show()));
    window.addEventListener('online', () => this.#again(0));
    this.#connect();
  }

  get key() { return sessionStorage.getItem(KEY) ?? ''; }
  set key(text) {
    if (text) sessionStorage.setItem(KEY, text); else sessionStorage.removeItem(KEY);
    this.#socket?.close();
    this.#again(0);
  }

  watch(call) { this.#watchers.add(call); return () => this.#watchers.delete(call); }
  #say(state, reason = '') {
    if (this.state === state && this.reason === reason) return;
    this.state = state;
    this.reason = reason;
    for (const call of this.#watchers) call(state, reason);
  }

  // Subscribe to a topic until the result is called. Each connection begins with a snapshot.
  topic(name, take) {
    this.#topics.set(name, take);
    if (!document.hidden) this.#ask(name);
    return () => {
      if (this.#topics.get(name) !== take) return;
      this.#topics.delete(name);
      this.#post({ op: 'unsubscribe', sid: name });
    };
  }

  // Have the events of a stream that this tab opened. They come whether or not the tab is hidden.
  stream(id, take) { this.#streams.set(id, take); return () => { this.#streams.delete(id); this.#post({ op: 'unsubscribe', sid: id }); }; }

  // Carry out an operation; resolves to the answer, rejects with the server's words.
  call(message) {
    return new Promise((resolve, reject) => {
      if (this.state !== 'open') { reject(new Error('There is no connection.')); return; }
      const ref = ++this.#ref;
      this.#answers.set(ref, (answer) => (answer.error ? reject(Object.assign(new Error(answer.error.message), answer.error)) : resolve(answer)));
      this.#post({ ...message, ref });
    });
  }

  #ask(name) {
    if (this.state !== 'open') return;
    this.call({ op: 'subscribe', sid: name }).catch((error) => {
      if (error.code === 'scope_missing') { this.#say('key', error.message); this.#socket?.close(); }
      else this.#topics.get(name)?.({ sid: name, type: 'refused', code: error.code, message: error.message });
    });
  }

  #post(message) { if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message)); }

  #connect() {
    this.#timer = null;
    const socket = this.#socket = new WebSocket(this.url);
    const key = this.key;
    socket.addEventListener('open', () => {
      if (key) this.#post({ op: 'auth', key, ref: 'auth' });
      else this.#opened();
    });
    socket.addEventListener('message', ({ data }) => this.#take(JSON.parse(data)));
    socket.addEventListener('close', ({ code, reason }) => {
      if (this.#socket !== socket) return;
      for (const answer of [...this.#answers.values()]) answer({ error: { message: 'The connection was cut.' } });
      this.#answers.clear();
      if (code === 1008 && reason === 'not authenticated') this.#say('key', key ? 'This key is not valid.' : '');
      else if (code === 4001) this.#say('key', 'This key has been revoked.');
      else if (code === 1008) this.#say('refused', reason);
      else if (this.state !== 'key') { this.#say('lost'); this.#again(); }
    });
  }

  #opened() {
    this.#say('open');
    if (!document.hidden) for (const name of this.#topics.keys()) this.#ask(name);
  }

  #take(message) {
    for (const one of Array.isArray(message) ? message : [message]) {
      if (one.ref === 'auth') {
        this.#opened(); // without keys the server does not know the operation, and needs none
      } else if (one.ref !== undefined) {
        const answer = this.#answers.get(one.ref);
        this.#answers.delete(one.ref);
        answer?.(one);
      } else {
        this.#wait = 250;
        (this.#topics.get(one.sid) ?? this.#streams.get(one.sid))?.(one);
        if (one.seq !== undefined && this.#streams.has(one.sid)) this.#post({ op: 'ack', sid: one.sid, seq: one.seq });
      }
    }
  }

  #again(pause = this.#wait * (0.75 + Math.random() / 2)) {
    if (this.#timer !== null && pause > 0) return;
    clearTimeout(this.#timer);
    this.#wait = Math.min(LONGEST, this.#wait * 2);
    this.#timer = setTimeout(() => {
      const isAlive = this.#socket && this.#socket.readyState <= WebSocket.OPEN;
      if (isAlive) this.#timer = null; else this.#connect();
    }, pause);
  }

  #hide() { for (const name of this.#topics.keys()) this.#post({ op: 'unsubscribe', sid: name }); }
  #show() {
    if (this.state === 'open') for (const name of this.#topics.keys()) this.#ask(name);
    else if (this.state === 'lost') this.#again(0);
  }
}
