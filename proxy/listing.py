"""The list of models in each dialect's form, filtered by what a key may use.  Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from engines.catalog import Catalog
from engines.model import DialectName
from proxy.auth import Principal
from proxy.errors import Refusal


def models_body(dialect: DialectName, catalog: Catalog, principal: Principal, wanted: str) -> bytes:
    """The JSON of `GET /v1/models`, or of one model where its (percent-encoded) name is given."""
    rows = {entry.name: _row(dialect, entry.name) for entry in catalog.entries if principal.may_use(entry.name)}
    if wanted:
        row = rows.get(unquote(wanted))
        if row is None:
            raise Refusal("model_not_found", "The model does not exist or this key may not use it.", param="model")
        return msgspec.json.encode(row)
    data = list(rows.values())
    if dialect == "anthropic":
        first = data[0]["id"] if data else None
        last = data[-1]["id"] if data else None
        return msgspec.json.encode({"data": data, "has_more": False, "first_id": first, "last_id": last})
    return msgspec.json.encode({"object": "list", "data": data})


def _row(dialect: DialectName, name: str) -> dict[str, Any]:
    if dialect == "anthropic":
        return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 0, "owned_by": "spillway"}
