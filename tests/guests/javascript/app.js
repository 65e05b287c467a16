// A guest in JavaScript, built by componentize-js: it greets, echoes, asks an upstream, sleeps and throws.

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname, searchParams: query } = new URL(request.url);
  switch (pathname) {
    case "/hello":
      return new Response("Hello, World, from StarlingMonkey");
    case "/print":
      console.log(query.get("line"));
      return new Response("printed");
    case "/echo":
      return new Response(request.body);
    case "/upper":
      return new Response(request.body.pipeThrough(upper()));
    case "/fetch":
      return new Response(await ask(query.get("url")));
    case "/post": {
      const body = "x".repeat(Number(query.get("bytes")));
      return new Response(await ask(query.get("url"), { method: "POST", body }));
    }
    case "/sleep":
      await new Promise((resolve) => setTimeout(resolve, Number(query.get("ms"))));
      return new Response("slept");
    case "/raise":
      throw new Error("on purpose");
    case "/raise-midway":
      return new Response(throws());
    default:
      return new Response("no such route", { status: 404 });
  }
}

async function ask(url, options) {
  try {
    const response = await fetch(url, options);
    return `${response.status} ${await response.text()}`;
  } catch (error) {
    return `error: ${error}`;
  }
}

const upper = () =>
  new TransformStream({
    transform(chunk, controller) {
      controller.enqueue(chunk.map((byte) => (byte >= 97 && byte <= 122 ? byte - 32 : byte)));
    },
  });

const throws = () =>
  new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode("some of it"));
    },
    async pull() {
      await new Promise((resolve) => setTimeout(resolve, 1));
      throw new Error("midway");
    },
  });
