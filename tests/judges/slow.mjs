// A client that stops reading: `slowly(base, bytes)` is a `fetch` that reads so many bytes of a stream's body, then
// nothing until the stream has ended at the server, then the rest.
const nap = () => new Promise(done => setTimeout(done, 20));

async function ended(base, id) {
  for (;;) {
    const answer = await fetch(`${base}/v1/streams/${id}`);
    if ((await answer.json()).state === 'ended') return;
    await nap();
  }
}

export function slowly(base, bytes) {
  return async (url, init) => {
    const response = await fetch(url, init);
    const id = response.headers.get('x-penstock-stream-id');
    if (!id || !response.body) return response;
    const reader = response.body.getReader();
    let read = 0;
    let hasWaited = false;
    const source = {
      async pull(controller) {
        if (read >= bytes && !hasWaited) {
          hasWaited = true;
          await ended(base, id);
        }
        const { done, value } = await reader.read();
        if (done) return controller.close();
        read += value.length;
        controller.enqueue(value);
      },
      cancel: reason => reader.cancel(reason),
    };
    const body = new ReadableStream(source, { highWaterMark: 0 });
    return new Response(body, { status: response.status, headers: response.headers });
  };
}

// Resolves when some stream has a reader.
export async function isRead(base) {
  for (;;) {
    const { streams } = await (await fetch(`${base}/v1/streams`)).json();
    if (streams.some(one => one.readers > 0)) return;
    await nap();
  }
}
