// Asks the server, and reads its stream of events.

// Calls on_chunk with each JSON object of the stream. Throws an Error with the server's own words when it refuses or
// fails, and an AbortError when `signal` says to stop.
export async function ask(body, { key, signal, on_chunk }) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw await error_of(response);
  let done = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      done = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    on_chunk(chunk);
  }
  if (!done) throw new Error("the connection was lost before the answer was complete");
}

export async function get(path, key) {
  const response = await fetch(path, key ? { headers: { authorization: `Bearer ${key}` } } : {});
  if (!response.ok) throw await error_of(response);
  return response.json();
}

// The server's own words, and `status`.
async function error_of(response) {
  let words;
  try {
    words = (await response.json()).error.message;
  } catch {
    words = `the server answered with status ${response.status}`;
  }
  return Object.assign(new Error(words), { status: response.status });
}

// The data of each event; comments are left out.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      if (event.startsWith("data: ")) yield event.slice("data: ".length);
    }
  }
}
