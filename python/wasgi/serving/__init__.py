"""An `App` behind a server: as an ASGI 3 application (`asgi`), and as a WSGI application (`wsgi`)."""
