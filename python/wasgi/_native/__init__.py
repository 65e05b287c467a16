"""What the native module calls: Python code that runs on an event loop or on one of our threads.

The native module (`src/py`) imports these modules by name when it first needs them, so `import wasgi` loads none of
them. They import the native module; nothing here imports serving, upstreams or testing.
"""
