// A guest in JavaScript, built by componentize-js: it posts `bytes` bytes to `url`, and says what came back.

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const query = new URL(request.url).searchParams;
  const body = "x".repeat(Number(query.get("bytes")));
  try {
    const response = await fetch(query.get("url"), { method: "POST", body });
    return new Response(`${response.status} ${await response.text()}`);
  } catch (error) {
    return new Response(String(error), { status: 502 });
  }
}
