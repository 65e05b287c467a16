import sys, wasgi
p = "tests/guests/components/%s.wasm"
def up(request):
    path = request.url.split("?")[0].rsplit("/",1)[1]
    if path == "refused": raise wasgi.errors.ConnectionRefused()
    if path == "early": return wasgi.Response(413, body=b"early")
    body = request.read()
    return wasgi.Response(body=f"{request.method} {request.url} {len(body)}".encode())
c = wasgi.Component(p % sys.argv[1])
print(c.wasi)
a = wasgi.App(c, outgoing=up, stdout=lambda l: print("OUT", l))
for t in sys.argv[2:]:
    try:
        r = a.handle(wasgi.Request("GET", "http://guest.local"+t)); print(t, r.status, r.text)
    except Exception as e: print(t, type(e).__name__, str(e)[:300])
