// A plug-in in JavaScript: who has pinned how many notes to the board, as a chart that the server has drawn.

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  if (new URL(request.url).pathname !== "/") return new Response("there is a page at /\n", { status: 404 });
  const response = await fetch("http://store.local/notes");
  const notes = (await response.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
  return new Response(page(count(notes)), { headers: { "content-type": "text/html; charset=utf-8" } });
}

function count(notes) {
  const counts = new Map();
  for (const { name } of notes) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1] || one[0].localeCompare(other[0])).slice(0, 8);
}

const escape = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

function page(bars) {
  const most = Math.max(1, ...bars.map(([, number]) => number));
  const rows = bars.map(([name, number], row) => {
    const y = row * 40, width = (number / most) * 300;
    return `<text x="0" y="${y + 24}">${escape(name.slice(0, 16))}</text>
      <rect x="150" y="${y + 6}" width="${width.toFixed(1)}" height="26" rx="6"/>
      <text class="number" x="${(158 + width).toFixed(1)}" y="${y + 24}">${number}</text>`;
  });
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Chart</title><style>
    :root { color-scheme: light dark; --ink: light-dark(#20242b, #e8e6e1); --paper: light-dark(#fff, #1d2026);
      --accent: light-dark(#b4451f, #ff9a6b) }
    body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; padding: 1.5rem }
    h1 { font-size: 1.25rem; margin: 0 0 1rem } svg { width: 100%; max-width: 34rem; font-size: 15px }
    text { fill: var(--ink) } rect { fill: var(--accent) } .number { opacity: .6 }
    footer { opacity: .6; font-size: .8rem; margin-top: 1rem }
  </style><h1>Who writes most</h1>
  ${bars.length ? `<svg viewBox="0 0 500 ${bars.length * 40}" role="img" aria-label="notes by name">${rows.join("")}</svg>`
    : "<p>Nobody has pinned a note yet.</p>"}
  <footer>JavaScript. Drawn by the component, one fresh instance for each look.</footer>`;
}
