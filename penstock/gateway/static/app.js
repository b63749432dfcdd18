// The dashboard: which page is shown, the connection, the key.

import { render } from './vendor/preact.module.js';
import { Feed } from './feed.js';
import { clock, span, words } from './format.js';
import { Board, Live } from './live.js';
import { html, useEffect, useRedraw, useRef, useState, useTopic } from './parts.js';
import { Play } from './play.js';
import { Providers } from './providers.js';
import { Stream } from './stream.js';

const address = new URL('v1/ws', location.href.split('#')[0]);
address.protocol = address.protocol.replace('http', 'ws');
const feed = new Feed(address);
const board = new Board();

const PAGES = [['', 'Live'], ['providers', 'Providers'], ['play', 'Play']];

function where() {
  const [page = '', id = ''] = location.hash.replace(/^#\/?/, '').split('/');
  try { return [page, decodeURIComponent(id)]; } catch { return ['', '']; }
}

function App() {
  const redraw = useRedraw();
  const [[page, id], setPlace] = useState(where);
  const [state, setState] = useState([feed.state, feed.reason]);
  const [paused, setPaused] = useState(false);
  const still = useRef(paused);
  still.current = paused;
  useEffect(() => {
    const move = () => { setPlace(where()); window.scrollTo(0, 0); };
    addEventListener('hashchange', move);
    const stop = feed.watch((...now) => setState(now));
    setState([feed.state, feed.reason]);
    return () => { removeEventListener('hashchange', move); stop(); };
  }, []);
  useTopic(feed, '$board', (message) => { board.take(message); if (!still.current || message.type === 'snapshot') redraw(); });
  useEffect(() => {
    const name = page === 'stream' ? id : (PAGES.find(([path]) => path === page)?.[1] ?? 'Live');
    document.title = `${name} – Penstock`;
  }, [page, id]);
  // Ages go on also if the server is silent, so that an old number is not taken for a new one.
  useEffect(() => { const timer = setInterval(() => { if (!still.current && feed.state === 'open') redraw(); }, 1000); return () => clearInterval(timer); }, []);
  const [kind, reason] = state;
  useEffect(() => { document.body.classList.toggle('old', kind === 'lost' || kind === 'refused'); }, [kind]);
  const body = kind === 'key' ? html`<${AskKey} reason=${reason}/>`
    : page === 'stream' && id ? html`<${Stream} key=${id} feed=${feed} id=${id} board=${board} paused=${paused}/>`
      : page === 'providers' ? html`<${Providers} feed=${feed} paused=${paused}/>`
        : page === 'play' ? html`<${Play} feed=${feed}/>`
          : html`<${Live} feed=${feed} board=${board} paused=${paused} setPaused=${setPaused}/>`;
  return html`<${Header} page=${page} kind=${kind} reason=${reason} paused=${paused} setPaused=${setPaused}/>${body}`;
}

function alerts(kind, reason) {
  if (kind === 'connecting') return ['Connecting …'];
  if (kind === 'lost') return [`The connection is lost. Trying again${board.known ? `; what is shown is from ${clock(board.t)}` : ''}.`];
  if (kind === 'refused') return [`The gateway refuses the connection: ${words(reason)}.`];
  const found = (board.kpi.circuits ?? []).map(([name, circuit]) => `${name}: circuit breaker ${words(circuit)}`);
  if (board.kpi.cluster && !board.kpi.cluster.well) found.push(`the cluster's store fails: ${board.kpi.cluster.problem}`);
  return board.kpi.draining ? ['The gateway is shutting down.', ...found] : found;
}

function Header({ page, kind, reason, paused, setPaused }) {
  const said = kind === 'key' ? [] : alerts(kind, reason);
  const { host, version, started } = board.about;
  return html`<header><a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); const main = document.querySelector('main'); main.tabIndex = -1; main.focus(); }}>Skip to the content</a><span class="brand">Penstock</span><nav aria-label="Pages">${PAGES.map(([path, title]) => html`<a key=${path} href=${`#/${path}`} aria-current=${page === path ? 'page' : null}>${title}</a>`)}</nav>
    <span class="alerts" role="status" aria-live="polite">${said.length ? html`<span class=${kind === 'lost' || kind === 'refused' ? 'bad' : 'warn'}><span aria-hidden="true">▲ </span>${said.join(' · ')}</span>` : ''}</span>
    ${paused && page !== '' ? html`<button type="button" aria-pressed="true" onClick=${() => setPaused(false)}>▶ Go on</button>` : ''}
    <span class="muted node">${board.known ? `${host} · ${version} · up ${span(Math.max(0, board.now - started))}` : ''}</span>
    ${feed.key ? html`<button type="button" onClick=${() => { board.reset(); feed.key = ''; }}>Forget the key</button>` : ''}</header>`;
}

function AskKey({ reason }) {
  const send = (event) => { event.preventDefault(); feed.key = event.target.elements.key.value.trim(); };
  return html`<main id="content" class="note"><h1>Key</h1><p>This gateway needs an API key with the scope <b>admin</b>. It stays in this tab, and is sent to this gateway only.</p>
    <form onSubmit=${send}><label>API key <input name="key" type="password" autocomplete="off" required spellcheck="false" aria-describedby="key-problem"/></label> <button class="primary">Open</button></form>
    <p id="key-problem" role="alert" class="bad">${reason}</p></main>`;
}

render(html`<${App}/>`, document.getElementById('app'));
