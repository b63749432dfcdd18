// The page of one stream. It looks at the stream without reading it: the page keeps no stream alive.

import { bytes, clock, count, millis, money, NONE, seconds, short, span, words } from './format.js';
import { Commands, html, Kpi, OVER, State, useEffect, useRedraw, useRef, useState, useTopic } from './parts.js';
import { Machine } from './machine.js';
import { Plot } from './plot.js';

const DOTS = 512, LINES = 200, TEXT = 20_000;

export function Stream({ feed, id, board, paused }) {
  const known = useRef(null), redraw = useRedraw(), problem = useRef(null);
  useEffect(() => { known.current = null; problem.current = null; redraw(); }, [id]);
  useTopic(feed, `$stream:${id}`, (message) => {
    if (message.type === 'snapshot') { known.current = { ...message, at: performance.now() }; problem.current = null; }
    else if (message.type === 'refused') problem.current = message;
    else if (known.current) apply(known.current, message);
    if (!paused) redraw();
  });
  if (problem.current) return html`<main id="content" class="note"><h1>Stream ${id}</h1><p>${problem.current.code === 'stream_not_found' ? 'The gateway does not know this stream. It has ended long ago, or never was.' : problem.current.message}</p><p><a href="#/">All streams</a></p></main>`;
  if (!known.current) return html`<main id="content" class="note"><h1>Stream ${id}</h1><p>Waiting for the first values.</p></main>`;
  const { facts, machine, lines, dots, text } = known.current;
  const change = lines.filter((line) => line[1] === 'state').at(-1);
  return html`<main id="content" class="page stream-page"><div class="bar-line"><h1 title=${id}>Stream <span class="id">${id}</span></h1><${State} name=${facts.state}/><${Commands} feed=${feed} id=${id} state=${facts.state} all=${true}/></div>
    ${facts.error ? html`<p class="alert bad"><b>${words(facts.error.type)}</b> (${facts.error.code}): ${facts.error.message}</p>` : ''}
    <section class="totals" aria-label="Totals of the stream"><dl>
      <${Kpi} name="tokens delivered" value=${count(facts.tokens_delivered)} note=${bytes(facts.bytes)}/>
      <${Kpi} name="tokens a second" value=${short(facts.tokens_per_second)} note="mean since the first"/>
      <${Kpi} name="time to first token" value=${seconds(facts.time_to_first_token_s)}/>
      <${Kpi} name="between tokens, p50" value=${seconds(facts.inter_token_p50_s)} note=${`p99 ${seconds(facts.inter_token_p99_s)}`}/>
      <${Kpi} name="requests made" value=${count(facts.attempts)} note=${facts.source ? `source: ${words(facts.source)}` : 'no provider'}/>
      <${Kpi} name="cost" value=${facts.cost ? `${facts.cost[0].toPrecision(3)}` : NONE} unit=${facts.cost?.[1] ?? ''} note=${facts.cost && facts.usage_is_estimate ? 'estimated' : ''}/>
      <${Kpi} name=${facts.end_time ? 'took' : 'has run for'} value=${span(facts.total_time_s)} note=${`since ${clock(facts.start_time)}`}/></dl></section>
    <div class="column"><section aria-labelledby="machine-head"><h2 id="machine-head">State</h2><${Machine} machine=${machine} state=${facts.machine_state} last=${change ? change[2].split(' → ') : null}/></section>
    <${Text} shows=${known.current.shows_text} text=${text} isOver=${OVER.includes(facts.state)}/>
    <${Readers} facts=${facts}/>
    <${Options} feed=${feed} id=${id} facts=${facts}/>
    <${OpenAs} id=${id}/></div>
    <div class="column"><${Dots} dots=${dots} facts=${facts}/>
    <${Timeline} lines=${lines}/>
    <${Numbers} facts=${facts}/></div></main>`;
}

function apply(known, message) {
  if (message.facts) known.facts = { ...known.facts, ...message.facts };
  if (message.lines) known.lines = [...known.lines, ...message.lines].slice(-LINES);
  if (message.dots) known.dots = [...known.dots, ...message.dots].slice(-DOTS);
  for (const [kind, piece] of message.text ?? []) {
    if (kind === 'reset') known.text = [];
    else if (known.text.at(-1)?.[0] === kind) known.text = [...known.text.slice(0, -1), [kind, (known.text.at(-1)[1] + piece).slice(-TEXT)]];
    else known.text = [...known.text, [kind, piece]].slice(-20);
  }
}

function Dots({ dots, facts }) {
  const points = dots.filter(([, gap]) => gap != null);
  const to = points.length ? points.at(-1)[0] : facts.start_time + 1, from = Math.min(points[0]?.[0] ?? facts.start_time, to - 1);
  return html`<section aria-labelledby="dots-head"><h2 id="dots-head">Between tokens</h2>
    ${points.length ? html`<${Plot} key="dots" title=${`milliseconds a token, last ${count(points.length)} deliveries`} lines=${[{ label: 'last' }]} data=${[points.map(([t]) => t), points.map(([, gap]) => gap)]} from=${from} to=${to} dots=${true} format=${short} now=${[millis(points.at(-1)[1])]}/>` : html`<p class="empty">Less than two deliveries so far.</p>`}
    <dl class="pairs"><div><dt>in the buffer</dt><dd>${count(facts.buffer_size)} of ${count(facts.options.max_buffer_size)}; at most ${count(facts.buffer_high_water_mark)} so far</dd></div>
    <div><dt>waits for room or slow readers</dt><dd>${count(facts.backpressure_events)}</dd></div><div><dt>dropped tokens</dt><dd class=${facts.tokens_dropped ? 'bad' : ''}>${count(facts.tokens_dropped)}</dd></div></dl></section>`;
}

function Text({ shows, text, isOver }) {
  const [read, setRead] = useState(false);
  const box = useRef();
  useEffect(() => { if (box.current) box.current.scrollTop = box.current.scrollHeight; });
  if (!shows) return html`<section aria-labelledby="text-head"><h2 id="text-head">Text</h2><p class="empty">Not shown: it may be personal data. The setting <code>dashboard.show_text</code> shows it.</p></section>`;
  if (!text.length) return html`<section aria-labelledby="text-head"><h2 id="text-head">Text</h2><p class="empty">${isOver ? 'It had no text.' : 'No text so far.'}</p></section>`;
  return html`<section aria-labelledby="text-head"><div class="bar-line"><h2 id="text-head">Text</h2><button type="button" aria-pressed=${String(read)} onClick=${() => setRead(!read)}>Read new text aloud</button></div>
    <div class="text" ref=${box} tabindex="0" role="region" aria-label="The text so far" aria-live=${read ? 'polite' : 'off'}>${text.map(([kind, piece], at) => (kind === 'reasoning' ? html`<details key=${at}><summary>reasoning, ${count(piece.length)} characters</summary>${piece}</details>` : html`<p key=${at} class=${kind === 'refusal' ? 'bad' : ''}>${piece}</p>`))}</div></section>`;
}

function Timeline({ lines }) {
  return html`<section aria-labelledby="time-head"><h2 id="time-head">Timeline</h2>
    <div class="scroll tall" role="region" tabindex="0" aria-label="Timeline, newest first"><table><thead><tr><th scope="col">time</th><th scope="col">kind</th><th scope="col">what</th><th scope="col">why</th></tr></thead>
    <tbody>${[...lines].reverse().map(([time, kind, what, why], at) => html`<tr key=${lines.length - at}><th scope="row">${clock(time)}.${String(Math.floor((time % 1) * 1000)).padStart(3, '0')}</th><td>${kind}</td><td class=${kind === 'reset' || what === 'failed' ? 'bad' : ''}>${words(what)}</td><td>${words(why)}</td></tr>`)}</tbody></table></div></section>`;
}

function Readers({ facts }) {
  const readers = facts.readers_list, others = facts.subscribers_list;
  return html`<section aria-labelledby="readers-head"><h2 id="readers-head">Readers</h2>
    ${readers.length ? html`<div class="scroll" role="region" tabindex="0" aria-label="Connections"><table><thead><tr><th scope="col">protocol</th><th scope="col">key</th><th scope="col" class="n">event</th><th scope="col" class="n">behind</th></tr></thead>
      <tbody>${readers.map(([protocol, key, seq, lag], at) => html`<tr key=${at}><th scope="row">${protocol}</th><td>${key}</td><td class="n">${count(seq)} of ${count(facts.last_seq)}</td><td class=${`n${lag > 65_536 ? ' warn' : ''}`}>${bytes(lag)}</td></tr>`)}</tbody></table></div>` : html`<p class="empty">No connection reads it.</p>`}
    ${others.length ? html`<h3>Subscribers in the program</h3><div class="scroll" role="region" tabindex="0" aria-label="Subscribers in the program"><table><thead><tr><th scope="col">subscriber</th><th scope="col">if slow</th><th scope="col" class="n">event</th><th scope="col" class="n">events wait</th><th scope="col" class="n">behind</th><th scope="col" class="n">dropped</th></tr></thead>
      <tbody>${others.map(([name, slow, seq, pending, lag, dropped], at) => html`<tr key=${at}><th scope="row">${name}</th><td>${slow}</td><td class="n">${count(seq)}</td><td class="n">${count(pending)}</td><td class="n">${bytes(lag)}</td><td class=${`n${dropped ? ' bad' : ''}`}>${count(dropped)}</td></tr>`)}</tbody></table></div>` : ''}</section>`;
}

function Numbers({ facts }) {
  const usage = Object.entries(facts.usage ?? {}).filter(([, value]) => typeof value === 'number');
  const pairs = [
    ['provider', facts.provider || NONE], ['model', facts.model || NONE], ['trace', facts.trace ? facts.trace.split('-')[1] ?? facts.trace : NONE],
    ['rounds', facts.rounds ? count(facts.rounds) : NONE], ['errors', count(facts.errors)], ['restarts of its actor', count(facts.restarts)],
    ['tool calls', `${count(facts.function_calls)}, ${seconds(facts.tool_time_s)}`], ['events', `${count(facts.last_seq)}, kept one by one from ${count(facts.first_seq)} on`],
    ['memory of the events', bytes(facts.kept_bytes)], ['if the last reader leaves', typeof facts.on_orphan === 'number' ? `goes on for ${span(facts.on_orphan)}` : facts.on_orphan],
  ];
  return html`<section aria-labelledby="usage-head"><h2 id="usage-head">Usage and origin</h2><dl class="pairs">
    ${usage.map(([name, value]) => html`<div key=${name}><dt>${words(name)}</dt><dd>${count(value)}${facts.usage_is_estimate ? ' (estimated)' : ''}</dd></div>`)}
    ${pairs.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="break">${value}</dd></div>`)}</dl></section>`;
}

const FIELDS = [['batch_size', 'tokens in a batch', 'number'], ['flush_interval', 'flush after, s', 'number'], ['rate_limit', 'tokens a second, empty: any', 'number']];

function Options({ feed, id, facts }) {
  const [said, say] = useState('');
  const over = OVER.includes(facts.state);
  const send = (event) => {
    event.preventDefault();
    const changes = {};
    for (const [name] of FIELDS) {
      const text = event.target.elements[name].value.trim();
      const value = text === '' ? null : Number(text);
      if (value !== (facts.options[name] ?? null)) changes[name] = value;
    }
    if (!Object.keys(changes).length) { say('Nothing was changed.'); return; }
    feed.call({ op: 'options', sid: id, ...changes }).then(() => say('Changed.'), (error) => say(error.message));
  };
  return html`<section aria-labelledby="options-head"><h2 id="options-head">Options</h2><form class="options" onSubmit=${send}>
    ${FIELDS.map(([name, title, type]) => html`<label key=${name}>${title} <input name=${name} type=${type} step="any" min="0" disabled=${over} defaultValue=${facts.options[name] ?? ''}/></label>`)}
    <button disabled=${over}>Change</button><span role="status" class="said">${said}</span></form></section>`;
}

function OpenAs({ id }) {
  const [as, setAs] = useState('native');
  const base = new URL('v1/', location.href.split('#')[0]).href;
  const path = `${base}streams/${encodeURIComponent(id)}/events`;
  const snippets = {
    native: `curl -N "${path}" -H "Authorization: Bearer $KEY"`,
    'OpenAI chat': `curl -N "${path}?as=openai" -H "Authorization: Bearer $KEY"`,
    'OpenAI Responses': `curl -N "${path}?as=responses" -H "Authorization: Bearer $KEY"`,
    Anthropic: `curl -N "${path}?as=anthropic" -H "Authorization: Bearer $KEY"`,
    'Vercel UI': `curl -N "${path}?as=ui" -H "Authorization: Bearer $KEY"`,
    'AG-UI': `curl -N "${path}?as=agui" -H "Authorization: Bearer $KEY"`,
    JavaScript: `const made = await fetch("${base}streams/${encodeURIComponent(id)}/tickets",\n  {method: "POST", headers: {authorization: \`Bearer \${KEY}\`}}).then((it) => it.json());\nconst source = new EventSource(new URL(made.url, "${base}"));`,
  };
  return html`<section aria-labelledby="as-head"><div class="bar-line"><h2 id="as-head">Open as</h2><label>protocol <select value=${as} onChange=${(event) => setAs(event.target.value)}>${Object.keys(snippets).map((name) => html`<option key=${name} value=${name} selected=${name === as}>${name}</option>`)}</select></label></div>
    <pre tabindex="0" role="region" aria-label=${`Open this stream as ${as}`}><code>${snippets[as]}</code></pre></section>`;
}
