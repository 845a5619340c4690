"""Runs the llama.cpp server of the `xllamacpp` wheel in this process: `python -m proxy.llamacpp MODEL --port N`.

The supervisor starts it as a child where no engine runs on the host, or where the configuration says
`managed`.  It ends when its parent does: standard input is a pipe whose end is the parent's life.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading

import xllamacpp


def main() -> int:
    """Serve until SIGTERM, SIGINT or the end of standard input."""
    parser = argparse.ArgumentParser(
        prog="python -m proxy.llamacpp", description="The llama.cpp server on one GGUF file, on loopback."
    )
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default="")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048, help="tokens of context for each slot")
    parser.add_argument("--threads", type=int, default=0, help="0: as llama.cpp chooses")
    parser.add_argument("--embeddings", action="store_true", help="serve embeddings instead of text")
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    server = xllamacpp.Server(parameters(options))
    print(f"listening {server.listening_address}", flush=True)
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    while not stop.wait(0.5):
        pass
    return 0


def parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    """llama.cpp's parameters: the context is divided by the slots, so it is multiplied here."""
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames = ["127.0.0.1"] if isinstance(params.hostnames, list) else "127.0.0.1"
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    params.n_threads_http = options.slots + 8
    params.cont_batching = True
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.endpoint_props = True
    params.fit_params = False
    params.warmup = False
    params.n_gpu_layers = 0
    if options.threads:
        params.cpuparams.n_threads = options.threads
        params.cpuparams_batch.n_threads = options.threads
    if options.alias:
        params.model_alias = {options.alias} if isinstance(params.model_alias, (set, list)) else options.alias
    if options.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def _watch_parent(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    raise SystemExit(main())
