// Drives npm's `eventsource` headless. Reads jobs, one line of JSON each, and prints for each what the client has seen, as
// a line of JSON.
//
// A job: { base, path, slow?, closeAfter?, stays? }. `slow`: the client stops reading after so many bytes, until the stream has
// ended. `closeAfter`: the number of events after which the client leaves. `stays`: it does not leave after the event
// `end`, but is stopped by the server.
import { createInterface } from 'node:readline';
import { EventSource } from 'eventsource';
import { slowly } from './slow.mjs';

const NAMES = ['token', 'snapshot', 'gap', 'reset', 'end'];

async function run({ base, path, slow, closeAfter, stays }) {
  const seen = { events: [], opened: 0, errors: [] };
  const awake = setInterval(() => {}, 1000); // the client's own timers do not keep Node alive
  const source = new EventSource(`${base}${path}`, slow ? { fetch: slowly(base, slow) } : {});
  await new Promise(done => {
    source.addEventListener('open', () => seen.opened++);
    source.addEventListener('error', error => {
      seen.errors.push(error.code ?? null);
      if (source.readyState === EventSource.CLOSED) done();
    });
    for (const name of NAMES) {
      source.addEventListener(name, event => {
        const { text, reason, type, error } = JSON.parse(event.data);
        seen.events.push({ name, id: event.lastEventId, text, reason, type, code: error?.code });
        if (seen.events.length === closeAfter || (name === 'end' && !stays)) {
          source.close();
          done();
        }
      });
    }
  });
  clearInterval(awake);
  return seen;
}

for await (const line of createInterface({ input: process.stdin })) {
  const seen = await run(JSON.parse(line)).catch(error => ({ crashed: error.stack }));
  console.log(JSON.stringify(seen));
}
