// Drives one version of `ai` without React: node vercel.mjs <package>. Reads jobs, one line of JSON each, and prints for
// each what the chat has seen, as a line of JSON.
//
// A job: { api, headers?, chatId?, messages?, steps: [...], slow?, base? }. `slow`: the client stops reading after so many
// bytes, until the stream has ended at `base`. Steps: { send, files?, body?, stopAfter?, stopServerAfter? },
// { regenerate: true, body? }, { resume: true }, { approve: true|false, reason?, body? }, { output: value, body? } (of a
// tool of the page), { read: text, body? }. `stopAfter`: stop() when the answer's text has that length;
// `stopServerAfter`: the route `stop` is called then.
import { createInterface } from 'node:readline';
import { slowly } from './slow.mjs';

const { AbstractChat, DefaultChatTransport, readUIMessageStream, ...others } = await import(process.argv[2]);

class State {
  constructor(messages) {
    this.messages = messages;
    this.status = 'ready';
    this.error = undefined;
    this.onChange = () => {};
  }
  pushMessage = message => this.set([...this.messages, message]);
  popMessage = () => this.set(this.messages.slice(0, -1));
  replaceMessage = (at, message) => this.set(this.messages.with(at, structuredClone(message)));
  snapshot = value => structuredClone(value);
  set(messages) {
    this.messages = messages;
    this.onChange(messages);
  }
}

class Chat extends AbstractChat {}

const textOf = message => (message?.parts ?? []).map(part => (part.type === 'text' ? part.text : '')).join('');

async function run(job) {
  const seen = { errors: [], data: [], toolCalls: [], statuses: [] };
  const state = new State(job.messages ?? []);
  const more = job.slow ? { fetch: slowly(job.base, job.slow) } : {};
  const transport = new DefaultChatTransport({ api: job.api, headers: job.headers, ...more });
  let number = 0;
  const chat = new Chat({
    id: job.chatId ?? 'chat-1',
    state,
    transport,
    generateId: () => `made-${++number}`,
    onError: error => seen.errors.push(error.message),
    onData: part => seen.data.push(part),
    onToolCall: ({ toolCall }) => void seen.toolCalls.push(toolCall.toolCallId),
    sendAutomaticallyWhen: others.lastAssistantMessageIsCompleteWithApprovalResponses,
  });

  async function read({ read: text, body }) {
    const messages = [{ id: 'u1', role: 'user', parts: [{ type: 'text', text }] }];
    const stream = await transport.sendMessages({ chatId: chat.id, messages, trigger: 'submit-message', body });
    const onError = error => seen.errors.push(error.message ?? String(error));
    for await (const message of readUIMessageStream({ stream, onError })) seen.read = structuredClone(message);
  }

  async function approve({ approve: approved, reason, body }) {
    for (const part of chat.lastMessage.parts.filter(one => one.state === 'approval-requested')) {
      await chat.addToolApprovalResponse({ id: part.approval.id, approved, reason, options: { body } });
    }
    // The chat sends the decisions by itself, a little later.
    const waits = () => chat.status !== 'ready' || chat.lastMessage.parts.some(one => one.state === 'approval-responded');
    for (let left = 2000; left && waits() && chat.status !== 'error'; left--) await new Promise(done => setTimeout(done, 5));
  }

  async function answer({ output, body }) {
    const part = chat.lastMessage.parts.findLast(one => one.state === 'input-available');
    const tool = part.toolName ?? part.type.slice('tool-'.length);
    await (chat.addToolOutput ?? chat.addToolResult)({ tool, toolCallId: part.toolCallId, output });
    await chat.sendMessage(undefined, { body });
  }

  async function send({ send: text, files, body, stopAfter, stopServerAfter }) {
    const after = stopAfter ?? stopServerAfter;
    state.onChange = messages => {
      if (!after || textOf(messages.at(-1)).length < after) return;
      state.onChange = () => {};
      if (stopAfter) chat.stop();
      else fetch(`${job.api}/${chat.id}/stop`, { method: 'POST' });
    };
    await chat.sendMessage({ text, files }, { body });
  }

  for (const step of job.steps) {
    if (step.send !== undefined) await send(step);
    else if (step.read !== undefined) await read(step);
    else if (step.approve !== undefined) await approve(step);
    else if (step.output !== undefined) await answer(step);
    else if (step.regenerate) await chat.regenerate({ body: step.body });
    else if (step.resume) await chat.resumeStream();
    else throw new Error(`unknown step: ${Object.keys(step)}`);
    seen.statuses.push(chat.status);
  }
  return { ...seen, status: chat.status, messages: chat.messages };
}

for await (const line of createInterface({ input: process.stdin })) {
  const seen = await run(JSON.parse(line)).catch(error => ({ crashed: error.stack }));
  console.log(JSON.stringify(seen));
}
