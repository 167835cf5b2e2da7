"""Things that keep a model warm on a worker. Plain classes, no Ray: `open(device)`, `__call__(batch)`.

The constructor stores settings and runs in the driver; `open` touches weights and runs on the worker. Actors annotate;
pure functions in the library decide. A bad row is data, a broken worker is an exception.
"""
