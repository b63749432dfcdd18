// The page Providers: each endpoint with its circuit, queue and limits; the models; the retry budget.

import { Sheet } from './feed.js';
import { count, millis, NONE, short } from './format.js';
import { html, Kpi, Models, State, useRedraw, useRef, useTopic } from './parts.js';

const left = (n) => (n == null ? 'not said' : count(n));

export function Providers({ feed, paused }) {
  const known = useRef({ endpoints: new Sheet(), models: new Sheet(), budget: {}, ready: false }), redraw = useRedraw();
  useTopic(feed, '$providers', (message) => {
    const { endpoints, models } = known.current;
    if (message.type === 'snapshot') {
      endpoints.take(message.endpoints);
      models.take(message.models);
      known.current.budget = message.budget;
      known.current.ready = true;
    } else if (message.type === 'patch') {
      if (message.endpoints) endpoints.apply(message.endpoints);
      if (message.models) models.apply(message.models);
      Object.assign(known.current.budget, message.budget);
    }
    if (!paused) redraw();
  });
  const { endpoints, models, budget, ready } = known.current;
  if (!ready) return html`<main id="content" class="note"><p>Waiting for the first values.</p></main>`;
  return html`<main id="content" class="page"><h1>Providers</h1>
    ${endpoints.list.length ? html`<div class="cards">${endpoints.list.map((one) => html`<${Endpoint} key=${one.number} one=${one}/>`)}</div>` : html`<section><p class="empty">No provider has been asked yet.</p></section>`}
    <section aria-labelledby="models-head"><h2 id="models-head">Models, last minute</h2><${Models} sheet=${models} label="Models"/></section>
    <section aria-labelledby="budget-head"><h2 id="budget-head">Retry budget of the whole system</h2><dl class="pairs"><div><dt>retries allowed</dt><dd>${count(budget.granted)}</dd></div><div><dt>retries refused</dt><dd class=${budget.refused ? 'bad' : ''}>${count(budget.refused)}</dd></div></dl></section></main>`;
}

function Endpoint({ one }) {
  const asked = one.completed + one.failed;
  const pairs = [
    ['in flight', count(one.in_flight)],
    ['in the queue', one.queue_high ? `${count(one.queue)}, at most ${count(one.queue_high)} so far` : count(one.queue)],
    ['TTFT p50 / p95', `${millis(one.ttft_p50_ms)} / ${millis(one.ttft_p95_ms)}`],
    ['failed, last minute', asked ? `${short((100 * one.failed) / asked)} % of ${count(asked)}` : NONE],
    ['tokens a second', short(one.tokens_per_s)],
    ['requests left, as it says', left(one.requests_left)],
    ['tokens left, as it says', left(one.tokens_left)],
    ['requests so far', `${count(one.requests)}, ${count(one.retries)} of them retries`],
    ['failures so far', count(one.failures)],
    ['refused by us', `${count(one.refused)}, and ${count(one.retries_refused)} retries`],
    ['tokens used', count(one.tokens)],
    ['API keys', count(one.keys)],
  ];
  return html`<section class="endpoint" aria-label=${`${one.provider}, ${one.url}`}><div class="bar-line"><h2>${one.provider}</h2><span>circuit <${State} name=${one.circuit}/></span></div>
    <p class="url" title=${one.url}>${one.url}</p>${one.held_s ? html`<p class="warn">◆ held for ${count(one.held_s)} s, as it asked</p>` : ''}
    <dl class="pairs">${pairs.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></section>`;
}
