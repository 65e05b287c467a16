// A guest in JavaScript for WASI 0.3, built by componentize-qjs: it greets, echoes, sleeps and throws.

import clock from "wasi:clocks/monotonic-clock@0.3.0";
import stdout from "wasi:cli/stdout@0.3.0";
import types from "wasi:http/types@0.3.0";

const { Fields, Request, Response } = types;
const encode = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (c) => c.charCodeAt(0));

let wake;
const shared = new Promise((resolve) => (wake = resolve));

export const handler = {
  async handle(request) {
    const [path, query] = (request.getPathWithQuery() ?? "/").split("?");
    const arg = (name) => {
      const found = (query ?? "").split("&").find((pair) => pair.startsWith(`${name}=`));
      return found && decodeURIComponent(found.slice(name.length + 1));
    };
    switch (path) {
      case "/hello":
        return answer("Hello, World, from QuickJS");
      case "/has": // whether there is such a global
        return answer(String(arg("name") in globalThis));
      case "/print": {
        const printed = await stdout.writeViaStream([encode(`${arg("line")}\n`)]);
        await printed.read();
        printed.drop();
        return answer("printed");
      }
      case "/echo": {
        const [body, trailers] = Request.consumeBody(request, done());
        return made(body, trailers);
      }
      case "/upper": {
        const [body, trailers] = Request.consumeBody(request, done());
        trailers.drop();
        return chunked(upper(body));
      }
      case "/sleep":
        await clock.waitFor(Number(arg("ms")) * 1_000_000);
        return answer("slept");
      case "/wait": // for another request, which comes with /wake
        return answer(`${path} ${await shared}`);
      case "/wake":
        wake("woken");
        return answer(path);
      case "/fail":
        throw { tag: "internal-error", val: "on purpose" };
      case "/raise":
        throw new Error("on purpose");
      case "/raise-midway":
        return chunked(throws());
      default:
        return answer("no such route", 404);
    }
  },
};

const fields = () => Fields.fromList([["content-type", encode("text/plain; charset=utf-8")]]);
const noTrailers = () => wit.Future.from({ tag: "ok", val: null }, wit.Future.RESULT_OPTION_OTHER_ERROR_CODE).readable;
const done = () => wit.Future.from({ tag: "ok" }, wit.Future.RESULT_VOID_WASI_HTTP_TYPES_0_3_0_ERROR_CODE).readable;

// what tells whether it was sent is dropped: nothing else would drop it but a collection of garbage
function made(...parts) {
  const [response, sent] = Response.new(fields(), ...parts);
  sent.drop();
  return response;
}

function chunked(chunks, status = 200) {
  const response = made(chunks, noTrailers());
  response.setStatusCode(status);
  return response;
}

function answer(text, status) {
  return chunked([encode(text)], status);
}

async function* upper(body) {
  for await (const chunk of body) yield chunk.map((byte) => (byte >= 97 && byte <= 122 ? byte - 32 : byte));
}

async function* throws() {
  yield encode("some of it");
  await clock.waitFor(1_000_000);
  throw new Error("midway");
}
