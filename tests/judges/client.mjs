// Drives `penstock.mjs` in Node. Reads jobs, one line of JSON each, and prints for each what the client has seen, as a line of
// JSON.
//
// A job: { base, options?, id?, body?, leaveAfter?, then?, without? }. `id`: of the stream to read; else one is opened with
// `body`. `leaveAfter`: the number of events after which the loop is left and the stream is read again after its last event.
// `then`: a command (`cancel`) for the stream once so many characters have come: { command, characters }. `without`: Node has no
// WebSocket, as before version 22.
import { createInterface } from 'node:readline';
import { Penstock } from './penstock.mjs';

const WebSocket = globalThis.WebSocket;

async function run({ base, options = {}, id, body, leaveAfter = 0, then, without = false }) {
  globalThis.WebSocket = without ? undefined : WebSocket;
  const client = new Penstock({ url: base, firstPause: 5, longestPause: 60, ...options });
  const seen = { types: [], seqs: [], text: '', ends: 0, cuts: 0, error: null };
  const onconnection = (state) => { seen.cuts += state === 'waiting'; };
  let stream;
  let isLeft;
  try {
    stream = body === undefined ? client.read(id, { onconnection }) : await client.open(body, { onconnection });
    do {
      isLeft = false;
      let left = leaveAfter;
      for await (const event of stream) {
        seen.types.push(event.type);
        if (event.seq !== undefined) seen.seqs.push(event.seq);
        if (event.type === 'token' && event.kind === 'text') seen.text += event.text;
        if (event.type === 'snapshot') seen.text = event.text;
        if (event.type === 'end') seen.ends++;
        if (then && seen.text.length >= then.characters) {
          await stream[then.command]('enough');
          then = undefined;
        }
        if (event.type !== 'end' && --left === 0) {
          isLeft = true;
          break;
        }
      }
      if (isLeft) stream = client.read(stream.id, { ...stream.snapshot(), onconnection });
    } while (isLeft);
  } catch (error) {
    seen.error = { name: error.name, status: error.status, code: error.code };
  }
  const { transport } = client;
  client.close();
  return { ...seen, id: stream?.id, own: stream?.text, outcome: stream?.end?.outcome ?? null, transport };
}

for await (const line of createInterface({ input: process.stdin })) {
  const seen = await run(JSON.parse(line)).catch(error => ({ crashed: error.stack }));
  console.log(JSON.stringify(seen));
}
