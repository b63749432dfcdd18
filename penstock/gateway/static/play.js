// The page Play: start streams against any model that is configured, side by side.

import { count, seconds, short } from './format.js';
import { Commands, html, State, useEffect, useRedraw, useRef, useState } from './parts.js';

let last = 0;
const runs = []; // they stay while other pages are shown

export function Play({ feed }) {
  const redraw = useRedraw();
  const [models, setModels] = useState([]), [problem, setProblem] = useState('');
  const [chosen, setChosen] = useState([]);
  useEffect(() => {
    const headers = feed.key ? { authorization: `Bearer ${feed.key}` } : {};
    fetch(new URL('v1/models', location.href.split('#')[0]), { headers }).then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`${answer.status}`))))
      .then(({ data }) => { const found = data.map((one) => ({ provider: one.owned_by, model: one.id })); setModels(found); setChosen((before) => (before.length ? before : found.slice(0, 1).map(named))); }, (error) => setProblem(`The list of models cannot be had: ${error.message}`));
  }, []);
  useEffect(() => { for (const run of runs) run.redraw = redraw; return () => { for (const run of runs) run.redraw = () => {}; }; });
  const start = (event) => {
    event.preventDefault();
    const fields = event.target.elements;
    const extra = fields.model.value.trim();
    const wanted = [...models.filter((one) => chosen.includes(named(one))), ...(extra ? [{ provider: undefined, model: extra }] : [])];
    if (!wanted.length) { setProblem('Choose a model, or name one.'); return; }
    let parameters;
    try { parameters = fields.parameters.value.trim() ? JSON.parse(fields.parameters.value) : undefined; } catch { setProblem('The parameters are no JSON, such as {"temperature": 0.2}.'); return; }
    setProblem('');
    const messages = [...(fields.system.value.trim() ? [{ role: 'system', content: fields.system.value }] : []), { role: 'user', content: fields.prompt.value }];
    for (const one of wanted) run(feed, { ...one, messages, parameters }, redraw);
    redraw();
  };
  const flip = (name) => setChosen(chosen.includes(name) ? chosen.filter((it) => it !== name) : [...chosen, name]);
  return html`<main id="content" class="page"><h1>Play</h1><section aria-label="New streams"><form class="play" onSubmit=${start}>
      <fieldset><legend>models</legend>${models.map((one) => html`<label key=${named(one)} class="check"><input type="checkbox" checked=${chosen.includes(named(one))} onChange=${() => flip(named(one))}/> ${named(one)}</label>`)}
        <label>another one <input name="model" placeholder="provider/model"/></label></fieldset>
      <label>system message <textarea name="system" rows="1"></textarea></label>
      <label>message <textarea name="prompt" rows="3" required>Hello</textarea></label>
      <label>parameters <input name="parameters" placeholder='{"temperature": 0.2}'/></label>
      <div class="bar-line"><button class="primary">Start</button>${runs.length ? html`<button type="button" onClick=${() => { for (const one of runs.splice(0)) one.stop?.(); redraw(); }}>Clear</button>` : ''}<span role="status" class="said">${problem}</span></div></form></section>
    <div class="cards runs">${runs.map((one) => html`<${Run} key=${one.number} feed=${feed} one=${one}/>`)}</div></main>`;
}

const named = ({ provider, model }) => (provider ? `${provider}/${model}` : model);

function run(feed, { provider, model, messages, parameters }, redraw) {
  const one = { number: ++last, title: named({ provider, model }), state: 'connecting', text: '', reasoning: '', tokens: 0, began: performance.now(), redraw };
  runs.unshift(one);
  let drawn = false;
  const draw = () => { if (!drawn) { drawn = true; requestAnimationFrame(() => { drawn = false; one.redraw(); }); } };
  feed.call({ op: 'start', provider, model, messages, parameters, on_orphan: 'cancel' }).then((answer) => {
    one.id = answer.sid;
    one.state = 'streaming';
    one.stop = feed.stream(answer.sid, (event) => { take(one, event); draw(); });
    draw();
  }, (error) => { one.state = 'failed'; one.error = error.message; draw(); });
}

function take(one, event) {
  if (event.replaces) { one.text = event.text ?? ''; one.reasoning = event.reasoning ?? ''; return; }
  switch (event.type) {
    case 'token':
      one.first ??= performance.now() - one.began;
      one.tokens += 1;
      if (event.kind === 'reasoning') one.reasoning += event.text; else one.text += event.text;
      break;
    case 'reset': one.text = one.reasoning = ''; break;
    case 'end':
      one.state = event.outcome;
      one.took = performance.now() - one.began;
      one.usage = event.usage;
      one.error = event.error?.message;
      break;
  }
}

function Run({ feed, one }) {
  const [read, setRead] = useState(false);
  const box = useRef();
  useEffect(() => { if (box.current) box.current.scrollTop = box.current.scrollHeight; });
  const output = one.usage?.output_tokens;
  return html`<section class="run" aria-label=${`Stream of ${one.title}`}><div class="bar-line"><h2>${one.title}</h2><${State} name=${one.state}/>${one.id ? html`<a href=${`#/stream/${encodeURIComponent(one.id)}`}>look closer<span class="hidden"> at ${one.id}</span></a>` : ''}</div>
    ${one.reasoning ? html`<details><summary>reasoning, ${count(one.reasoning.length)} characters</summary><p class="text">${one.reasoning}</p></details>` : ''}
    <div class="text" ref=${box} tabindex="0" role="region" aria-label=${`Answer of ${one.title}`} aria-live=${read ? 'polite' : 'off'}>${one.text}</div>
    ${one.error ? html`<p class="bad">${one.error}</p>` : ''}
    <p class="muted">first token ${one.first == null ? '–' : seconds(one.first / 1000)}${one.took == null ? '' : html`, all in ${seconds(one.took / 1000)}${output ? `, ${count(output)} tokens, ${short(output / (one.took / 1000))} a second` : ''}`}</p>
    <div class="bar-line">${one.id ? html`<${Commands} feed=${feed} id=${one.id} state=${one.state}/>` : ''}<button type="button" aria-pressed=${String(read)} aria-label=${`Read ${one.title} aloud`} onClick=${() => setRead(!read)}>Read aloud</button></div></section>`;
}
