// A guest with Hono: text, JSON, a page, forms, a stream, errors, and what it keeps of its requests.

import { Hono } from "hono";
import { html } from "hono/html";
import { stream } from "hono/streaming";

const app = new Hono();
const seen = [];

app.use("*", async (context, next) => {
  await next();
  context.header("x-handled-by", "hono");
});

app.get("/", (context) => context.text("Hello, World, from Hono"));

app.get("/users/:name", (context) => {
  const name = context.req.param("name");
  return context.json({ name, length: name.length, query: context.req.query() });
});

app.get("/page", (context) => {
  const title = context.req.query("title") ?? "a <page>";
  const rows = Array.from({ length: Number(context.req.query("rows") ?? 5) }, (_, n) => n);
  return context.html(
    html`<!doctype html>
      <title>${title}</title>
      <ul>
        ${rows.map((n) => html`<li>${n}: ${title.toUpperCase()}</li>`)}
      </ul>`,
  );
});

app.post("/form", async (context) => context.json(await context.req.parseBody()));

app.post("/echo", async (context) => context.body(await context.req.arrayBuffer()));

app.get("/stream", (context) =>
  stream(context, async (out) => {
    for (let n = 0; n < 20; n++) await out.write(`row ${n}\n`.repeat(50));
  }),
);

// what a fresh instance has seen: this request alone
app.get("/seen/:name", (context) => {
  seen.push(context.req.param("name"));
  globalThis[`of_${seen.at(-1)}`] = true;
  const of_global = Object.keys(globalThis).filter((name) => name.startsWith("of_"));
  return context.json({ seen, of_global });
});

app.get("/print", (context) => {
  console.log(context.req.query("line"));
  return context.text("printed");
});

app.get("/raise", () => {
  throw new Error("on purpose");
});

addEventListener("fetch", (event) => event.respondWith(app.fetch(event.request)));
