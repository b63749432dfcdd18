// What the pages share.

import { html, useEffect, useReducer, useRef, useState } from './vendor/preact.module.js';
import { count, money, millis, NONE, short, sign, words } from './format.js';

export { html, useEffect, useReducer, useRef, useState };

// Draw a component again whenever the result is called; at most once in a frame.
export function useRedraw() {
  const [, redraw] = useReducer((n) => n + 1, 0);
  return redraw;
}

// The messages of a topic while the component is there. `take` is called with each.
export function useTopic(feed, name, take) {
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => (name ? feed.topic(name, (message) => latest.current(message)) : undefined), [feed, name]);
}

// Whether the page is to stand still: new values are kept back until it goes on.
export function PauseLive({ paused, set }) {
  return html`<button type="button" class="live" aria-pressed=${String(paused)} onClick=${() => set(!paused)}>
    ${paused ? '▶ Go on' : '‖ Pause updates'}</button>`;
}

export function State({ name }) {
  const [symbol, kind] = sign(name);
  return html`<span class=${`state ${kind}`}><span class="sign" aria-hidden="true">${symbol}</span>${words(name)}</span>`;
}

export function Bar({ percent, label }) {
  return html`<span class="bar" role="img" aria-label=${`${label} ${percent} %`} title=${`${percent} %`}><span style=${{ width: `${percent}%` }}></span></span>`;
}

export function Kpi({ name, value, unit = '', note = '', kind = '' }) {
  return html`<div class=${`kpi ${kind}`}><dt>${name}</dt><dd><b>${value}</b>${unit && value !== NONE ? html` <span class="unit">${unit}</span>` : ''}</dd>${note ? html`<dd class="hint" title=${note}>${note}</dd>` : ''}</div>`;
}

// A head of a column by which a table is sorted. The button stays the same one, so that it keeps the focus.
export function Head({ column, sort, setSort }) {
  const { name, title, numeric, hint } = column;
  const active = sort.name === name;
  const direction = !active ? 'none' : sort.down ? 'descending' : 'ascending';
  const flip = () => setSort({ name, down: active ? !sort.down : !!numeric });
  return html`<th scope="col" class=${`${numeric ? 'n' : ''} c-${name}`} aria-sort=${direction}>
    <button type="button" class="sort" title=${hint ?? null} onClick=${flip}>${title}<span aria-hidden="true" class="arrow">${active ? (sort.down ? '▼' : '▲') : ''}</span></button></th>`;
}

export function sorted(rows, { name, down }) {
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [a[name], b[name]];
    if (x === y) return a.number - b.number;
    if (x == null) return 1;
    if (y == null) return -1;
    return (typeof x === 'string' ? x.localeCompare(y) : x - y) * sign;
  });
}

// The states in which a stream has ended.
export const OVER = ['completed', 'failed', 'cancelled'];

// Buttons that command a stream. What the server says about a refusal is shown beside them, and read out.
export function Commands({ feed, id, state, all = false }) {
  const [said, say] = useState('');
  const run = (op, more = {}) => () => feed.call({ op, sid: id, ...more }).then(() => say(all ? `${op}: done` : ''), (error) => say(error.message));
  const over = OVER.includes(state);
  const paused = state === 'paused';
  return html`<span class="commands">
    <button type="button" disabled=${over} aria-label=${`${paused ? 'Resume' : 'Pause'} ${id}`} onClick=${run(paused ? 'resume' : 'pause')}>${paused ? 'Resume' : 'Pause'}</button>
    <button type="button" disabled=${over} aria-label=${`Cancel ${id}`} onClick=${run('cancel', { reason: 'cancelled on the dashboard' })}>Cancel</button>
    ${all ? html`<button type="button" disabled=${over} aria-label=${`Flush ${id}`} onClick=${run('flush')}>Flush</button>` : ''}
    ${said ? html`<span class="said" role="status">${said}</span>` : ''}</span>`;
}

export const MODEL_COLUMNS = [
  ['provider', 'provider'], ['model', 'model'], ['running', 'running', count], ['tokens_per_s', 'tokens/s', short],
  ['ttft_p95_ms', 'TTFT p95', millis], ['gap_p95_ms', 'between tokens p95', millis], ['completed', 'completed', count],
  ['failed', 'failed', count], ['cost_per_h', 'cost/h', money],
];

export function Models({ sheet, label }) {
  const rows = sheet.list;
  if (!rows.length) return html`<p class="empty">No model has been asked yet.</p>`;
  return html`<div class="scroll" role="region" tabindex="0" aria-label=${label}><table>
    <thead><tr>${MODEL_COLUMNS.map(([name, title, as]) => html`<th scope="col" class=${as ? 'n' : ''} key=${name}>${title}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.number}>${MODEL_COLUMNS.map(([name, , as], at) =>
      at === 0 ? html`<th scope="row" key=${name}>${row[name] || 'none'}</th>`
        : html`<td key=${name} class=${`${as ? 'n' : ''}${name === 'failed' && row.failed ? ' bad' : ''}`}>${as ? as(row[name]) : row[name] || NONE}</td>`)}</tr>`)}</tbody></table></div>`;
}
