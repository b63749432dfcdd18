// A chat. It is kept in the browser (localStorage) under the id in the page's address, so that a reload and other tabs have it.
//
// An answer under way is known by an idempotency key: each tab that shows the chat asks for the answer with the same key, and so
// all of them read the same stream, from its beginning. It ends if no tab reads it for a minute.

import { Penstock, PenstockError } from '/llm/penstock.mjs';

const WITHOUT_READERS = 60; // seconds
const client = new Penstock(); // of the gateway at /llm, from which the module comes
const by = (id) => document.getElementById(id);
const [list, status, question, send, stop] = ['messages', 'status', 'question', 'send', 'stop'].map(by);

// The chat: its messages, of which an assistant's one has an `outcome`, and the key of the answer that is under way.
let id = '';
let chat = { messages: [], answer: null };
let stream = null;
let mustStop = false; // asked for before the stream was known

function load() {
  try {
    chat = JSON.parse(localStorage.getItem(`chat:${id}`)) ?? { messages: [], answer: null };
  } catch {
    chat = { messages: [], answer: null };
  }
}

function save() { localStorage.setItem(`chat:${id}`, JSON.stringify(chat)); }

// --- what is shown ---

function item({ role, content, outcome }) {
  const one = document.createElement('li');
  one.className = role;
  const name = one.appendChild(document.createElement('h2'));
  name.textContent = role === 'user' ? 'You' : 'Answer';
  one.appendChild(document.createElement('p')).textContent = content;
  if (outcome && outcome !== 'completed') {
    const note = one.appendChild(document.createElement('p'));
    note.className = 'outcome';
    note.textContent = { cancelled: 'Stopped.', failed: 'This answer broke off.' }[outcome] ?? outcome;
  }
  return one;
}

function show() {
  list.replaceChildren(...chat.messages.map(item));
  if (chat.answer) list.append(item({ role: 'assistant', content: stream?.text ?? '' }));
  send.disabled = chat.answer !== null;
  stop.hidden = chat.answer === null;
  by('again').href = `#${id}`;
  by('fresh').href = `#${crypto.randomUUID()}`;
}

function showText() {
  const isAtEnd = innerHeight + scrollY >= document.body.scrollHeight - 40;
  list.lastElementChild.querySelector('p').textContent = stream.text;
  if (isAtEnd) scrollTo({ top: document.body.scrollHeight });
}

// --- what is done ---

function ask(text) {
  chat.messages.push({ role: 'user', content: text });
  chat.answer = crypto.randomUUID();
  save();
  show();
  void read();
}

// Read the answer that is under way, in whichever tab it was asked for.
async function read() {
  const [chatId, key] = [id, chat.answer];
  const messages = chat.messages.filter(({ content }) => content).map(({ role, content }) => ({ role, content }));
  const isCurrent = () => id === chatId && chat.answer === key;
  mustStop = false;
  let outcome = 'failed';
  let text = '';
  status.textContent = 'The answer is coming.';
  try {
    const found = await client.open({ messages, on_orphan: WITHOUT_READERS }, {
      idempotencyKey: key,
      onconnection: (state) => { status.textContent = state === 'waiting' ? 'The connection is lost. Trying again.' : ''; },
    });
    if (!isCurrent()) {
      found.close();
      return;
    }
    stream = found;
    if (mustStop) cancel();
    for await (const event of stream) {
      if (['token', 'reset', 'snapshot', 'gap'].includes(event.type)) showText();
    }
    if (stream.end === null) return; // another chat is shown
    ({ text, end: { outcome } } = stream);
    status.textContent = 'The answer is complete.';
  } catch (error) {
    text = stream?.text ?? '';
    status.textContent = error instanceof PenstockError ? error.message : String(error);
  }
  if (!isCurrent()) return; // the other tab was first
  chat.messages.push({ role: 'assistant', content: text, outcome });
  chat.answer = null;
  stream = null;
  save();
  show();
}

function cancel() {
  stream.cancel('stopped by the user').catch((error) => { status.textContent = error.message; });
}

// Show the chat of the address, and read on what is under way.
function begin() {
  stream?.close();
  stream = null;
  id = location.hash.slice(1);
  if (!id) {
    id = crypto.randomUUID();
    history.replaceState(null, '', `#${id}`);
  }
  status.textContent = '';
  load();
  show();
  if (chat.answer) void read();
}

document.querySelector('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || chat.answer) return;
  question.value = '';
  ask(text);
});
question.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  question.form.requestSubmit();
});
stop.addEventListener('click', () => {
  question.focus(); // the button goes away
  mustStop = true;
  if (stream) cancel();
});
addEventListener('hashchange', begin);
addEventListener('pagehide', () => stream?.close());
addEventListener('pageshow', (event) => { if (event.persisted) begin(); });
addEventListener('storage', ({ key }) => {
  if (key !== `chat:${id}`) return;
  const before = chat.answer;
  load();
  if (chat.answer === before) return show();
  if (before) stream?.close();
  stream = null;
  show();
  if (chat.answer) void read();
  else status.textContent = 'The answer is complete.';
});
begin();
