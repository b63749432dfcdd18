// Drives `@ag-ui/client` headless. Reads jobs, one line of JSON each, and prints for each what the agent has seen, as a
// line of JSON.
//
// A job: { url, threadId, messages?, runs: [...] }. Runs: { runId, forwardedProps?, say?, tools?, context?, resume?,
// get?, abortAfter? }. `get`: the run's events are read from that address, as after a reload of the page. `abortAfter`:
// the number of events after which the run is aborted.
import { createInterface } from 'node:readline';
import { HttpAgent } from '@ag-ui/client';

const warnings = [];
console.warn = (...words) => warnings.push(words.join(' '));
console.error = () => {}; // a failed run is reported as `error` or `threw`

async function run(job) {
  warnings.length = 0;
  let address = null;
  const agent = new HttpAgent({
    url: job.url,
    threadId: job.threadId,
    initialMessages: job.messages ?? [],
    fetch: (url, init) => (address ? fetch(address, { signal: init.signal }) : fetch(url, init)),
  });
  const runs = [];
  for (const { get, say, abortAfter, ...parameters } of job.runs) {
    address = get ?? null;
    if (say) agent.addMessage({ id: `user-${runs.length + 1}`, role: 'user', content: say });
    const seen = { events: [], customs: [] };
    const subscriber = {
      onEvent({ event }) {
        seen.events.push(event.type);
        if (event.type === 'CUSTOM') seen.customs.push([event.name, event.value]);
        if (event.type === 'RUN_STARTED') seen.started = event;
        if (abortAfter && seen.events.length === abortAfter) agent.abortRun();
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
