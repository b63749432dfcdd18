// Drives `@ag-ui/client` headless. Reads jobs, one line of JSON each, and prints for each what the agent has seen, as a
// line of JSON.
//
// A job: { url, threadId, messages?, runs: [...], slow?, base? }. `slow`: the client stops reading after so many bytes,
// until the stream has ended at `base`. Runs: { runId, forwardedProps?, say?, tools?, context?, resume?, get?, abortAfter?,
// cancelAfter? }. `get`: the run's events are read from that address, as after a reload of the page. `abortAfter`:
// the number of events after which the run is aborted; `cancelAfter`: after which the server is told to cancel the stream.
import { createInterface } from 'node:readline';
import { HttpAgent } from '@ag-ui/client';
import { slowly } from './slow.mjs';

const warnings = [];
console.warn = (...words) => warnings.push(words.join(' '));
console.error = () => {}; // a failed run is reported as `error` or `threw`

async function run(job) {
  warnings.length = 0;
  let address = null;
  let stream = null;
  const ask = job.slow ? slowly(job.base, job.slow) : fetch;
  async function ours(url, init) {
    const response = await (address ? ask(address, { signal: init.signal }) : ask(url, init));
    stream = response.headers.get('x-penstock-stream-id');
    return response;
  }
  const agent = new HttpAgent({
    url: job.url,
    threadId: job.threadId,
    initialMessages: job.messages ?? [],
    fetch: ours,
  });
  const runs = [];
  for (const { get, say, abortAfter, cancelAfter, ...parameters } of job.runs) {
    address = get ?? null;
    if (say) agent.addMessage({ id: `user-${runs.length + 1}`, role: 'user', content: say });
    const seen = { events: [], customs: [] };
    const subscriber = {
      onEvent({ event }) {
        seen.events.push(event.type);
        if (event.type === 'CUSTOM') seen.customs.push([event.name, event.value]);
        if (event.type === 'RUN_STARTED') seen.started = event;
        if (abortAfter && seen.events.length === abortAfter) agent.abortRun();
        if (cancelAfter && seen.events.length === cancelAfter) {
          fetch(new URL(`/v1/streams/${stream}/cancel`, job.url), { method: 'POST' });
        }
      },
      onRunFinishedEvent({ event, outcome, pendingToolCallIds }) {
        Object.assign(seen, { finished: event, outcome, pendingToolCallIds });
      },
      onRunErrorEvent({ event }) {
        seen.error = { message: event.message, code: event.code };
      },
    };
    try {
      await agent.runAgent(parameters, subscriber);
    } catch (error) {
      seen.threw = error.message;
      seen.status = error.status;
    }
    seen.pendingInterrupts = agent.pendingInterrupts;
    runs.push(seen);
  }
  return { runs, messages: agent.messages, warnings: [...warnings] };
}

for await (const line of createInterface({ input: process.stdin })) {
  const seen = await run(JSON.parse(line)).catch(error => ({ crashed: error.stack }));
  console.log(JSON.stringify(seen));
}
