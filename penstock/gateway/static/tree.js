// The supervision tree: arrow keys move, the right and the left one open and close.

import { Sheet } from './feed.js';
import { count, sign, words } from './format.js';
import { html, useRedraw, useRef, useState, useTopic } from './parts.js';

const STEP = 50;
const USUAL = { handler: 'serving', reaper: 'waiting' }; // what processes of the system do while nothing is wrong

export function Tree({ feed, isPaused }) {
  const sheet = useRef(new Sheet()), redraw = useRedraw(), box = useRef();
  const [order, setOrder] = useState('start');
  const [closed, setClosed] = useState(() => new Map());
  const [limits, setLimits] = useState(() => new Map());
  const [focus, setFocus] = useState(1);
  useTopic(feed, '$tree', (message) => {
    if (message.type === 'snapshot') sheet.current.take(message);
    else if (message.type === 'patch') sheet.current.apply(message);
    if (!isPaused) redraw();
  });
  const below = new Map();
  for (const row of sheet.current.rows.values()) {
    if (!below.has(row.parent)) below.set(row.parent, []);
    below.get(row.parent).push(row);
  }
  if (order !== 'start') for (const rows of below.values()) rows.sort((a, b) => b[order] - a[order] || a.number - b.number);
  const isOpen = (row) => !(closed.get(row.number) ?? (row.children > 20));
  const limit = (row) => limits.get(row.number) ?? STEP;
  const flip = (row, open) => setClosed(new Map(closed).set(row.number, !open));
  const shown = [];
  const walk = (row, level) => {
    shown.push({ row, level });
    if (row.children && isOpen(row)) for (const child of (below.get(row.number) ?? []).slice(0, limit(row))) walk(child, level + 1);
  };
  const roots = below.get(0) ?? [];
  for (const root of roots) walk(root, 1);
  const current = shown.some(({ row }) => row.number === focus) ? focus : shown[0]?.row.number;

  const go = (number) => { setFocus(number); requestAnimationFrame(() => box.current?.querySelector(`[data-row="${number}"]`)?.focus()); };
  const press = (event) => {
    const at = shown.findIndex(({ row }) => row.number === current);
    if (at < 0) return;
    const { row } = shown[at];
    const moves = {
      ArrowDown: () => shown[at + 1] && go(shown[at + 1].row.number),
      ArrowUp: () => shown[at - 1] && go(shown[at - 1].row.number),
      Home: () => go(shown[0].row.number),
      End: () => go(shown.at(-1).row.number),
      ArrowRight: () => (row.children && !isOpen(row) ? flip(row, true) : row.children && shown[at + 1] && go(shown[at + 1].row.number)),
      ArrowLeft: () => (row.children && isOpen(row) ? flip(row, false) : row.parent && go(row.parent)),
      Enter: () => { const id = streamOf(row); if (id) location.hash = `#/stream/${encodeURIComponent(id)}`; else if (row.children) flip(row, !isOpen(row)); },
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  };
  const node = (row, level, size, place) => {
    const children = below.get(row.number) ?? [];
    const open = row.children > 0 && isOpen(row);
    const rest = row.children - Math.min(limit(row), children.length);
    return html`<li key=${row.number} role="treeitem" aria-level=${level} aria-setsize=${size} aria-posinset=${place} aria-selected=${String(row.number === current)}
      aria-expanded=${row.children ? String(open) : null} tabindex=${row.number === current ? 0 : -1} data-row=${row.number}
      aria-label=${[row.name, row.kind, row.state, row.mailbox ? `${row.mailbox} waiting` : '', row.restarts ? `${row.restarts} restarts` : '', row.children ? `${row.children} children` : ''].filter(Boolean).join(', ')}
      onFocus=${(event) => { event.stopPropagation(); setFocus(row.number); }}>
      <span class="node" onClick=${() => { setFocus(row.number); if (row.children) flip(row, !open); }}><span class="twist" aria-hidden="true">${row.children ? (open ? '▾' : '▸') : ''}</span>
        <span class="name" title=${`${row.name} (${row.kind})`}>${row.name.replace(/^(stream|source)\//, '')}</span>${row.children ? html` <span class="muted">${count(row.children)}</span>` : ''}
        ${row.state !== (USUAL[row.name] ?? 'running') ? html` <${Sign} name=${row.state}/>` : ''}${row.mailbox ? html` <b class="warn">${row.mailbox} waiting</b>` : ''}${row.restarts ? html` <b class="bad">${row.restarts} ↻</b>` : ''}</span>
      ${open ? html`<ul role="group">${children.slice(0, limit(row)).map((child, at) => node(child, level + 1, row.children, at + 1))}</ul>` : ''}
      ${open && rest > 0 ? html`<div class="rest muted">${count(rest)} more${children.length > limit(row) ? html` <button type="button" tabindex="-1" onClick=${(event) => { event.stopPropagation(); setLimits(new Map(limits).set(row.number, limit(row) + 4 * STEP)); }}>Show</button>` : ''}</div>` : ''}</li>`;
  };
  return html`<section class="tree" aria-labelledby="tree-head"><div class="bar-line"><h2 id="tree-head">Supervision tree</h2>
    <label>order <select value=${order} onChange=${(event) => setOrder(event.target.value)}><option value="start">as started</option><option value="mailbox">by mailbox</option><option value="restarts">by restarts</option></select></label></div>
    ${roots.length ? html`<ul role="tree" aria-labelledby="tree-head" ref=${box} onKeyDown=${press}>${roots.map((row, at) => node(row, 1, roots.length, at + 1))}</ul>` : html`<p class="empty">Waiting for the tree.</p>`}</section>`;
}

const Sign = ({ name }) => html`<span class=${`sign ${sign(name)[1]}`} aria-hidden="true" title=${words(name)}>${sign(name)[0]}</span>`;
const streamOf = (row) => (row.name.startsWith('stream/') ? row.name.slice(7) : undefined);
