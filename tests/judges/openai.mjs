// Drives npm's `openai` headless. Reads jobs, one line of JSON each, and prints for each what the client has seen, as a
// line of JSON.
//
// A job: { base, steps: [...], slow? }. `slow`: the client stops reading after so many bytes, until the stream has ended.
// Steps: { chat: body, abortAfter?, abortUnread? } (streamed), { chatHelper: body }, { chatWhole: body },
// { respond: body, abortAfter? } (streamed), { respondHelper: body }, { resume: true } (the last response, after its last
// event), { cancel: true } (the last response), { retrieve: true }. `abortAfter`: the number of chunks after which the
// client leaves; `abortUnread`: it leaves while the server waits for the first one.
import { createInterface } from 'node:readline';
import OpenAI from 'openai';
import { isRead, slowly } from './slow.mjs';

const told = error => ({
  kind: error.constructor.name,
  message: error.message,
  status: error.status,
  code: error.code,
  type: error.type,
  requestId: error.requestID,
  retryAfter: error.headers?.get('retry-after'),
});

async function readChat(stream, abortAfter) {
  const seen = { text: '', reasoning: '', calls: [], chunks: 0 };
  try {
    for await (const chunk of await stream) {
      seen.chunks++;
      seen.usage ??= chunk.usage;
      const [choice] = chunk.choices;
      seen.text += choice?.delta?.content ?? '';
      seen.reasoning += choice?.delta?.reasoning_content ?? '';
      seen.finish ??= choice?.finish_reason;
      for (const piece of choice?.delta?.tool_calls ?? []) {
        const call = (seen.calls[piece.index] ??= { id: '', name: '', arguments: '' });
        call.id += piece.id ?? '';
        call.name += piece.function?.name ?? '';
        call.arguments += piece.function?.arguments ?? '';
      }
      if (seen.chunks === abortAfter) (await stream).controller.abort();
    }
  } catch (error) {
    seen.error = told(error);
  }
  return seen;
}

async function readResponse(stream, abortAfter) {
  const seen = { text: '', reasoning: '', types: [], numbers: [], deltas: 0 };
  try {
    for await (const event of await stream) {
      seen.types.push(event.type);
      seen.numbers.push(event.sequence_number);
      seen.id ??= event.response?.id;
      if (event.type === 'response.output_text.delta') {
        seen.text += event.delta;
        seen.deltas++;
      }
      if (event.type.endsWith('_text.delta') && event.type.startsWith('response.reasoning')) seen.reasoning += event.delta;
      if (event.response) seen.response = event.response;
      if (seen.types.length === abortAfter) (await stream).controller.abort();
    }
  } catch (error) {
    seen.error = told(error);
  }
  return seen;
}

async function run({ base, steps, slow }) {
  const more = slow ? { fetch: slowly(base, slow) } : {};
  const client = new OpenAI({ apiKey: 'k', baseURL: `${base}/v1`, maxRetries: 0, ...more });
  const seen = [];
  let last; // the last response: its id, and the number of its last event

  async function chat({ chat: body, abortAfter, abortUnread }) {
    const leaving = new AbortController();
    const stream = client.chat.completions.create({ ...body, stream: true }, { signal: leaving.signal });
    if (abortUnread) isRead(base).then(() => leaving.abort());
    return readChat(stream, abortAfter);
  }

  async function respond({ respond: body, abortAfter }) {
    const found = await readResponse(client.responses.create({ ...body, stream: true }), abortAfter);
    last = { id: found.id, number: found.numbers.at(-1) };
    return found;
  }

  async function take(step) {
    if (step.chat) return chat(step);
    if (step.chatHelper) return client.chat.completions.stream(step.chatHelper).finalChatCompletion();
    if (step.chatWhole) return client.chat.completions.create(step.chatWhole);
    if (step.respond) return respond(step);
    if (step.respondHelper) return client.responses.stream(step.respondHelper).finalResponse();
    if (step.resume) return readResponse(client.responses.retrieve(last.id, { stream: true, starting_after: last.number }));
    if (step.cancel) return client.responses.cancel(last.id);
    if (step.retrieve) return client.responses.retrieve(last.id);
    throw new Error(`unknown step: ${Object.keys(step)}`);
  }

  for (const step of steps) seen.push(await take(step).catch(error => ({ error: told(error) })));
  return { steps: seen };
}

for await (const line of createInterface({ input: process.stdin })) {
  const seen = await run(JSON.parse(line)).catch(error => ({ crashed: error.stack }));
  console.log(JSON.stringify(seen));
}
