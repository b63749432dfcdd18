// The page Live: totals, plots, models, the tree and all streams.

import { Sheet } from './feed.js';
import { count, millis, money, NONE, short, span, words } from './format.js';
import { Bar, Commands, Head, html, Kpi, Models, OVER, PauseLive, sorted, State, useEffect, useRedraw, useRef, useState, useTopic } from './parts.js';
import { Plot } from './plot.js';
import { Tree } from './tree.js';

const LENGTH = 900;
const COLUMNS = [
  { name: 'id', title: 'id' },
  { name: 'state', title: 'state' },
  { name: 'model', title: 'model' },
  { name: 'tokens', title: 'tokens', numeric: true, hint: 'tokens delivered' },
  { name: 'speed', title: 'tok/s', numeric: true, hint: 'tokens a second, over the last seconds' },
  { name: 'ttft_ms', title: 'TTFT', numeric: true, hint: 'from the opening to the first token' },
  { name: 'last', title: 'last token', numeric: true, hint: 'how long ago; 5 s are marked, and the time-out of a silent answer' },
  { name: 'readers', title: 'readers', numeric: true, hint: 'connections, and others in the program' },
  { name: 'buffer', title: 'buffer', hint: 'how full the buffer is' },
];

// Everything that `$board` says, for all pages.
export class Board {
  constructor() { this.reset(); }
  reset() { this.known = false; this.kpi = {}; this.about = {}; this.t = 0; this.streams = new Sheet(); this.models = new Sheet(); this.series = { end: null, values: {} }; }
  take(message) {
    if (message.type === 'snapshot') {
      this.known = true;
      this.streams.take(message.streams);
      this.models.take(message.models);
      this.series = message.series;
      this.kpi = message.kpi;
      this.about = message;
    } else if (message.type === 'patch') {
      this.streams.apply(message);
      if (message.models) this.models.apply(message.models);
      if (message.kpi) this.kpi = { ...this.kpi, ...message.kpi };
      if (message.point) this.#point(message.point);
    } else return;
    this.t = message.t;
    this.at = performance.now();
  }
  // The server's time now: ages count from it, whatever this machine's clock says.
  get now() { return this.t + (performance.now() - this.at) / 1000; }
  #point([end, ...values]) {
    const { series } = this;
    const names = Object.keys(series.values);
    const missed = series.end === null ? 0 : Math.min(LENGTH, Math.max(0, end - series.end - 1));
    names.forEach((name, at) => {
      const points = [...series.values[name], ...Array(missed).fill(null), values[at]];
      series.values[name] = points.slice(-LENGTH);
    });
    this.series = { ...series, end };
  }
}

export function Live({ feed, board, paused, setPaused }) {
  if (!board.known) return html`<main id="content" class="note"><p>Waiting for the first values.</p></main>`;
  return html`<main id="content" class="live-page"><h1 class="hidden">Live</h1><${Totals} board=${board}/>
    <${Tree} feed=${feed} isPaused=${paused}/>
    <div class="column"><${Plots} board=${board}/>
      <section aria-labelledby="models-head"><h2 id="models-head">Models, last minute</h2><${Models} sheet=${board.models} label="Models"/></section>
      ${board.kpi.cluster ? html`<${Cluster} cluster=${board.kpi.cluster}/>` : ''}</div>
    <${Streams} feed=${feed} board=${board} paused=${paused} setPaused=${setPaused}/></main>`;
}

const NODES = { here: 'this node', alive: 'alive', drains: 'shuts down', dead: 'dead' };

function Cluster({ cluster }) {
  const { nodes, engine, store, well, problem, lag, beat_s: beat, lease_s: lease, waiting } = cluster;
  return html`<section aria-labelledby="cluster-head"><h2 id="cluster-head">Cluster</h2>
    <p class=${well ? 'muted' : 'bad'} title=${store}>${well ? `${engine} works` : `▲ the store fails: ${problem}`}; lease renewed ${beat < 0 ? 'never' : `${span(beat)} ago`}, of ${span(lease)}; ${count(lag)} events wait to be stored${waiting ? `; ${count(waiting)} requests without a node` : ''}</p>
    <div class="scroll" role="region" tabindex="0" aria-label="Table of nodes"><table class="list"><thead><tr><th scope="col">node</th><th scope="col">state</th><th scope="col" class="n">streams</th><th scope="col" class="n">claims</th><th scope="col">address</th></tr></thead>
      <tbody>${nodes.map(([name, state, streams, held, address], at) => html`<tr key=${at}><th scope="row">${name}</th><td class=${state === 'dead' ? 'bad' : state === 'drains' ? 'warn' : ''}>${NODES[state]}</td><td class="n">${count(streams)}</td><td class="n">${count(held)}</td><td>${address || NONE}</td></tr>`)}</tbody></table></div></section>`;
}

function Totals({ board }) {
  const { kpi } = board;
  const window = kpi.window < 60 ? `last ${Math.max(1, kpi.window)} s` : 'last minute';
  const since = kpi.window < 60 ? 'since the start' : 'last minute';
  const states = Object.entries(kpi.states ?? {}).filter(([name]) => ['paused', 'rate_limited', 'error'].includes(name)).map(([name, n]) => `${n} ${words(name)}`).join(', ');
  return html`<section class="totals" aria-label="Totals"><dl>
    <${Kpi} name="running streams" value=${count(kpi.streams)} note=${states || `${count(kpi.ended)} ended`}/>
    <${Kpi} name="tokens a second" value=${short(kpi.tokens_per_s)} note="last 2 s"/>
    <${Kpi} name="time to first token, p95" value=${millis(kpi.ttft_p95_ms)} note=${since}/>
    <${Kpi} name="between tokens, p95" value=${millis(kpi.gap_p95_ms)} note=${since}/>
    <${Kpi} name="readers" value=${count(kpi.readers)} note="connections"/>
    <${Kpi} name="failed streams" value=${count(kpi.failed)} note=${`of ${count(kpi.failed + kpi.completed)}, ${window}`} kind=${kpi.failed ? 'bad' : ''}/>
    <${Kpi} name="cost an hour" value=${money(kpi.cost_per_h)} note=${window}/></dl></section>`;
}

function Plots({ board }) {
  const [length, setLength] = useState(60);
  const { end, values } = board.series;
  const to = end ?? Math.floor(board.now), from = to - length;
  const cut = (name) => { const points = (values[name] ?? []).slice(-length - 1); return Array(Math.max(0, length + 1 - points.length)).fill(null).concat(points); };
  const times = Array.from({ length: length + 1 }, (_, at) => from + at);
  const last = (name) => values[name]?.at(-1);
  return html`<section aria-labelledby="plots-head"><div class="bar-line"><h2 id="plots-head">Over time</h2>
      <div class="choice" role="group" aria-label="Length of the plots">${[[60, '60 s'], [LENGTH, '15 min']].map(([n, title]) => html`<button type="button" key=${n} aria-pressed=${String(length === n)} onClick=${() => setLength(n)}>${title}</button>`)}</div></div>
    <div class="plots"><${Plot} title="tokens a second" lines=${[{ label: 'now' }]} data=${[times, cut('tokens_per_s')]} from=${from} to=${to} format=${short} now=${[short(last('tokens_per_s'))]}/>
    <${Plot} title="milliseconds, p95 of 10 s" lines=${[{ label: 'first token' }, { label: 'between tokens', dash: [6, 4] }]} data=${[times, cut('ttft_p95_ms'), cut('gap_p95_ms')]} from=${from} to=${to} format=${short} now=${[millis(last('ttft_p95_ms')), millis(last('gap_p95_ms'))]}/></div></section>`;
}

// What is said of the age of the last token: how bad that is, and the words.
function ageOf(row, now, stall) {
  if (OVER.includes(row.state)) return ['muted', 'ended'];
  if (row.last === 0) return ['', '< 1 s'];
  const age = Math.max(0, now - (row.last ?? row.created));
  return [age >= stall ? 'bad' : age >= 5 && row.state !== 'paused' ? 'warn' : '', span(age)];
}

function Age({ kind, text, isFirst }) {
  const sign = { bad: '▲ ', warn: '◆ ' }[kind];
  return html`<span class=${kind}>${sign ? html`<span aria-hidden="true">${sign}</span>` : ''}${isFirst ? html`<span title="since the opening: no token yet">${text}</span>` : text}</span>`;
}

// The cells of the rows as they were made last. What is given to preact again is not looked at again, and in a frame most cells
// of 200 rows are as they were.
export class Cells {
  #rows = new Map();
  // Call `draw` with each row and a function that returns a cell, made anew only if the text that it is made of has changed.
  draw(rows, draw) {
    const before = this.#rows;
    this.#rows = new Map();
    return rows.map((row) => {
      const cells = before.get(row.number) ?? {};
      this.#rows.set(row.number, cells);
      return draw(row, (name, text, make) => {
        if (cells[name]?.text !== text) cells[name] = { text, node: make() };
        return cells[name].node;
      });
    });
  }
}

function Streams({ feed, board, paused, setPaused }) {
  const [text, setText] = useState(''), [state, setState] = useState(''), [model, setModel] = useState('');
  const [sort, setSort] = useState({ name: 'number', down: true }), cells = useRef(null);
  cells.current ??= new Cells();
  const all = board.streams.list;
  const named = (row) => [row.provider, row.model].filter(Boolean).join('/');
  const states = [...new Set(all.map((row) => row.state))].sort(), models = [...new Set(all.map(named))].filter(Boolean).sort();
  const wanted = text.trim().toLowerCase();
  const chosen = all.filter((row) => (!state || row.state === state) && (!model || named(row) === model) && (!wanted || `${row.id} ${named(row)} ${row.state}`.toLowerCase().includes(wanted)));
  const now = board.now, { stall } = board.about;
  // Sorted by the age of the last token: what flows comes first, then what was silent for the shortest time.
  const by = sort.name === 'last' ? chosen.map((row) => ({ ...row, age: OVER.includes(row.state) ? null : row.last === 0 ? 0 : now - (row.last ?? row.created) })) : chosen;
  const rows = sorted(by, sort.name === 'last' ? { name: 'age', down: sort.down } : sort);
  const options = (values, chosen) => [...new Set([...values, ...(chosen ? [chosen] : [])])].map((name) => html`<option key=${name} value=${name}>${words(name)}</option>`);
  return html`<section class="streams" aria-labelledby="streams-head"><div class="bar-line"><h2 id="streams-head">Streams</h2>
      <label>filter <input type="search" value=${text} placeholder="id, model or state" onInput=${(event) => setText(event.target.value)}/></label>
      <label>state <select value=${state} onChange=${(event) => setState(event.target.value)}><option value="">all</option>${options(states, state)}</select></label>
      <label>model <select value=${model} onChange=${(event) => setModel(event.target.value)}><option value="">all</option>${options(models, model)}</select></label>
      <${PauseLive} paused=${paused} set=${setPaused}/><span class="muted">${count(rows.length)} shown${board.kpi.more ? `, ${count(board.kpi.more)} more run` : ''}</span></div>
    <div class="scroll" role="region" tabindex="0" aria-label="Table of streams"><table class="list"><thead><tr>${COLUMNS.map((column) => html`<${Head} key=${column.name} column=${column} sort=${sort} setSort=${setSort}/>`)}<th scope="col" class="c-do">commands</th></tr></thead>
      <tbody>${cells.current.draw(rows, (row, cell) => {
        const { id, state, attempts, restarts, buffer } = row, source = named(row), [kind, age] = ageOf(row, now, stall);
        const number = (name, text) => cell(name, text, () => html`<td class="n">${text}</td>`);
        return html`<tr key=${row.number} class=${OVER.includes(state) ? 'over' : ''}>
        ${cell('id', id, () => html`<th scope="row"><a href=${`#/stream/${encodeURIComponent(id)}`} title=${id}>${id}</a></th>`)}
        ${cell('state', `${state} ${attempts} ${restarts}`, () => html`<td><${State} name=${state}/>${attempts > 1 ? html` <span class="warn" title="requests made to providers">${attempts} tries</span>` : ''}${restarts ? html` <span class="bad" title="restarts of its actor">${restarts} ↻</span>` : ''}</td>`)}
        ${cell('model', source, () => html`<td class="model" title=${source}>${row.model || NONE}</td>`)}${number('tokens', count(row.tokens))}${number('speed', short(row.speed))}${number('ttft', millis(row.ttft_ms))}
        ${cell('last', `${kind} ${row.last == null} ${age}`, () => html`<td class="n"><${Age} kind=${kind} text=${age} isFirst=${row.last == null}/></td>`)}${number('readers', count(row.readers))}
        ${cell('buffer', String(buffer), () => html`<td><${Bar} percent=${buffer} label="buffer"/></td>`)}${cell('do', state, () => html`<td class="c-do"><${Commands} feed=${feed} id=${id} state=${state}/></td>`)}</tr>`;
      })}</tbody></table>
      ${rows.length ? '' : html`<p class="empty">${all.length ? 'No stream fits the filter.' : html`No stream runs. <a href="#/play">Start one</a>, or send a request to the gateway.`}</p>`}</div></section>`;
}
