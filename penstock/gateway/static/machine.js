// The state machine of streams, drawn from the table that the server sends: its states and moves are those of the code.

import { sign, words } from './format.js';
import { html } from './parts.js';

const WIDTH = 118, HEIGHT = 34, GAP_X = 44, GAP_Y = 44, PAD = 10;
const PLACES = { idle: [0, 0], buffering: [1, 0], streaming: [2, 0], rate_limited: [3, 0], paused: [1, 1], error: [2, 1], end: [3, 1] };

// Where a box stands; a state that the layout does not know gets a place in a row of its own.
function place(name, unknown) {
  const [x, y] = PLACES[name] ?? [unknown.indexOf(name), 2];
  return { x: PAD + x * (WIDTH + GAP_X), y: PAD + y * (HEIGHT + GAP_Y) };
}

export function Machine({ machine, state, last }) {
  const names = [...machine.states.map(([name]) => name), 'end'];
  const unknown = names.filter((name) => !PLACES[name]);
  const at = Object.fromEntries(names.map((name) => [name, place(name, unknown)]));
  const active = state === 'ended' ? 'end' : state;
  const pairs = new Map();
  for (const [source, target, when] of machine.moves) {
    if (source === 'start' || !at[source] || !at[target]) continue;
    const [a, b] = [source, target].sort();
    const key = `${a} ${b}`;
    const found = pairs.get(key) ?? { a, b, forth: false, back: false, when: [] };
    if (source === a) found.forth = true; else found.back = true;
    found.when.push(`${words(source)} → ${words(target)}: ${when}`);
    pairs.set(key, found);
  }
  const lit = ({ a, b }) => last && [a, b].includes(norm(last[0])) && [a, b].includes(norm(last[1]));
  const width = 2 * PAD + 4 * WIDTH + 3 * GAP_X, height = 2 * PAD + 2 * HEIGHT + GAP_Y + (unknown.length ? HEIGHT + GAP_Y : 0);
  const meaning = Object.fromEntries(machine.states);
  const moves = machine.moves.filter(([source]) => source === active);
  return html`<div class="machine"><svg viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`State machine; the current state is ${words(state)}`}>
    <defs>${['', '-lit'].map((kind) => html`<marker key=${kind} id=${`tip${kind}`} class=${`tip${kind}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z"/></marker>`)}</defs>
    ${[...pairs.values()].sort((x, y) => (lit(x) ? 1 : 0) - (lit(y) ? 1 : 0)).map((pair) => { const on = lit(pair); return html`<path key=${`${pair.a} ${pair.b}`} class=${`move${on ? ' lit' : [pair.a, pair.b].includes(active) ? ' near' : ''}`} d=${way(at[pair.a], at[pair.b])} marker-end=${pair.forth ? `url(#tip${on ? '-lit' : ''})` : null} marker-start=${pair.back ? `url(#tip${on ? '-lit' : ''})` : null}><title>${pair.when.join('\n')}</title></path>`; })}
    ${names.map((name) => html`<g key=${name} class=${`box ${name === active ? `on ${sign(state)[1]}` : ''}`}><rect x=${at[name].x} y=${at[name].y} width=${WIDTH} height=${HEIGHT} rx="6"><title>${meaning[name] ?? 'the stream has ended'}</title></rect>
      <text x=${at[name].x + WIDTH / 2} y=${at[name].y + HEIGHT / 2 + 4}>${name === active ? '● ' : ''}${words(name === 'end' ? 'ended' : name)}</text></g>`)}</svg>
    <p><b>${words(state)}</b>: ${(meaning[state] ?? 'the stream has ended').replaceAll('`', '')}.</p>
    ${moves.length ? html`<details><summary>Moves from here</summary><ul>${moves.map(([, target, when]) => html`<li key=${target + when}>to <b>${words(target === 'end' ? 'ended' : target)}</b>: ${when.replaceAll('`', '')}</li>`)}</ul></details>` : ''}</div>`;
}

const norm = (name) => (name === 'ended' ? 'end' : name);

// A line between two boxes: straight between neighbours and rows, an arc over or under the boxes between.
function way(from, to) {
  const [a, b] = from.x <= to.x ? [from, to] : [to, from];
  const flip = a !== from;
  const steps = Math.round((b.x - a.x) / (WIDTH + GAP_X));
  let points;
  if (a.y === b.y && steps === 1) points = [[a.x + WIDTH, a.y + HEIGHT / 2], [b.x, b.y + HEIGHT / 2]];
  else if (a.y === b.y) {
    const top = a.y < 40, edge = top ? a.y : a.y + HEIGHT, bend = top ? a.y - 9 : a.y + HEIGHT + 9;
    const [p, q] = [a.x + WIDTH * 0.75, b.x + WIDTH * 0.25];
    return flip ? `M${q} ${edge}C${q} ${bend} ${p} ${bend} ${p} ${edge}` : `M${p} ${edge}C${p} ${bend} ${q} ${bend} ${q} ${edge}`;
  } else {
    const lower = a.y > b.y;
    const slant = steps === 0 ? 0 : 0.3;
    points = [[a.x + WIDTH * (0.5 + slant), lower ? a.y : a.y + HEIGHT], [b.x + WIDTH * (0.5 - slant), lower ? b.y + HEIGHT : b.y]];
  }
  const [p, q] = flip ? points.reverse() : points;
  return `M${p.join(' ')}L${q.join(' ')}`;
}
