"""aiohttp's request parser, and no more of aiohttp: its client, server and two TLS contexts take 0.1 s and 9 MB to load.

A package's own module runs before any module in it.  aiohttp's loads all of it, and the parser needs none of that: so it
is left out until somebody asks the package for something that is not there yet.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Within, modules of the package `name` are loaded without the package's own module.  Afterwards it runs when one of
    its attributes is asked for: whoever imports the package, such as a plug-in, gets the whole of it."""
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is None or spec.loader is None:
        yield
        return
    package = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader, lock, begun = spec.loader, threading.RLock(), False

    def whole(wanted: str) -> Any:
        nonlocal begun
        # Its modules ask for each other, and for its version, also where one of them is loaded before the package has run.
        if wanted == "__version__":
            from importlib.metadata import version

            return version(name)
        if importlib.util.find_spec(f"{name}.{wanted}") is not None:
            return importlib.import_module(f"{name}.{wanted}")
        with lock:  # who comes meanwhile waits for the whole
            if not begun:
                begun = True
                loader.exec_module(package)
                if vars(package)["__getattr__"] is whole:  # it has none of its own
                    del vars(package)["__getattr__"]
        if vars(package).get("__getattr__") is whole:  # asked by the module itself as it runs
            raise AttributeError(f"module {name!r} has no attribute {wanted!r}")
        return getattr(package, wanted)

    try:
        yield
    except BaseException:
        del sys.modules[name]
        raise
    vars(package)["__getattr__"] = whole


with alone("aiohttp"):
    from aiohttp.http_exceptions import HttpProcessingError as HttpProcessingError
    from aiohttp.http_parser import HttpRequestParser as HttpRequestParser
    from aiohttp.http_writer import HttpVersion10 as HttpVersion10
    from aiohttp.streams import StreamReader as StreamReader


class RequestPayloadError(Exception):
    """The framing of a body is broken: what the parser is to raise."""
