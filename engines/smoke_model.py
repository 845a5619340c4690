"""Writes the smoke-test model: a tiny Llama with random weights, as a GGUF file for llama.cpp.

It answers with random dictionary words.  It exists so that a fresh installation, and every test, has a real
engine to talk to without a download; it is no language model and must be called what it is.
Format: the GGUF specification (ggml, docs/gguf.md), written with the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

NAME = "smoke-test"
LAYERS, WIDTH, FEED_FORWARD, HEADS, CONTEXT = 2, 64, 128, 4, 8192
NEVER = -30.0
"""Output bias of tokens that must not be sampled: control tokens, bytes and word pieces."""

WORDS = """
    the a of and to in is was that for it on with as his they be at one have this from or had by hot word but
    what some we can out other were all there when up use your how said an each she which do their time if
    will way about many then them write would like so these her long make thing see him two has look more day
    could go come did number sound no most people my over know water than call first who may down side been
    now find any new work part take get place made live where after back little only round man year came show
    every good me give our under name very through just form sentence great think say help low line differ
    turn cause much mean before move right boy old too same tell does set three want air well also play small
    end put home read hand port large spell add even land here must big high such follow act why ask men
    change went light kind off need house picture try us again animal point mother world near build self earth
    father hello system user assistant
    """.split()  # noqa: SIM905  a list of words reads best as words

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] if"
    " message['content'] is string else '') + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Matrix = NDArray[np.float32]


def write_smoke_model(path: Path, *, seed: int = 0, stop_bias: float = 1.5) -> None:
    """Write the model to `path` (about 1 MB), atomically.  A higher `stop_bias` makes answers end sooner."""
    part = path.with_suffix(f".part{seed}")
    tokens = _vocabulary()
    writer = gguf.GGUFWriter(str(part), "llama")
    _describe(writer, tokens)
    for name, tensor in _tensors(tokens, seed, stop_bias):
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)


def _vocabulary() -> list[tuple[bytes, float, int]]:
    """(token, score, type) of a SentencePiece vocabulary with byte fallback, so that any text can be read."""
    kind = gguf.TokenType
    tokens: list[tuple[bytes, float, int]] = [
        (b"<unk>", 0.0, kind.UNKNOWN),
        (b"<s>", 0.0, kind.CONTROL),
        (b"</s>", 0.0, kind.CONTROL),
    ]
    tokens += [(f"<0x{byte:02X}>".encode(), 0.0, kind.BYTE) for byte in range(256)]
    tokens += [(b"<|im_start|>", 0.0, kind.CONTROL), (b"<|im_end|>", 0.0, kind.CONTROL)]
    # Every prefix of a word is a token, so that SentencePiece's merges can reach the whole word.
    prefixes = dict.fromkeys(("▁" + word)[:length] for word in WORDS for length in range(2, len(word) + 2))
    pieces = sorted(prefixes, key=len) + ["▁"] + [chr(code) for code in range(33, 127)]
    tokens += [(piece.encode(), float(-rank), kind.NORMAL) for rank, piece in enumerate(dict.fromkeys(pieces), start=1)]
    return tokens


def _describe(writer: gguf.GGUFWriter, tokens: list[tuple[bytes, float, int]]) -> None:
    names = [token for token, _, _ in tokens]
    writer.add_name(NAME)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(names)
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([int(kind) for _, _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(names.index(b"<|im_end|>"))
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _tensors(tokens: list[tuple[bytes, float, int]], seed: int, stop_bias: float) -> Iterator[tuple[str, Matrix]]:
    """Random weights, but for residual channel 0: constant, written to by nobody, so it acts as an output bias."""
    dice = np.random.default_rng(seed)

    def random(rows: int, columns: int, scale: float | None = None) -> Matrix:
        matrix: Matrix = dice.standard_normal((rows, columns)).astype(np.float32)
        return matrix * np.float32(scale if scale is not None else 1.0 / np.sqrt(columns))

    embedding = random(len(tokens), WIDTH, 1.0)
    embedding[:, 0] = 4.0
    yield "token_embd.weight", embedding
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", np.ones(WIDTH, np.float32)
        yield prefix + "attn_q.weight", random(WIDTH, WIDTH)
        yield prefix + "attn_k.weight", random(WIDTH, WIDTH)
        yield prefix + "attn_v.weight", random(WIDTH, WIDTH)
        output = random(WIDTH, WIDTH)
        output[0, :] = 0
        yield prefix + "attn_output.weight", output
        yield prefix + "ffn_norm.weight", np.ones(WIDTH, np.float32)
        yield prefix + "ffn_gate.weight", random(FEED_FORWARD, WIDTH)
        yield prefix + "ffn_up.weight", random(FEED_FORWARD, WIDTH)
        down = random(WIDTH, FEED_FORWARD)
        down[0, :] = 0
        yield prefix + "ffn_down.weight", down
    yield "output_norm.weight", np.ones(WIDTH, np.float32)
    words = {("▁" + word).encode() for word in WORDS}
    head = random(len(tokens), WIDTH, 2.0 / float(np.sqrt(WIDTH)))
    for row, (token, _, _) in enumerate(tokens):
        head[row, 0] = 0.0 if token in words else stop_bias if token == b"<|im_end|>" else NEVER
    yield "output.weight", head
