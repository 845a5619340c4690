"""Where fitted routes are kept: for workers in the state directory, for commands where their user may write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.decision_checks import OF_ROUTES, asked
from proxy.routing_names import graph_key, routes_key
from proxy.state.shelf import FileShelf, Shelves, user_shelf

if TYPE_CHECKING:
    from proxy.config import Settings

FOLDER = "routes"
ROUTES, GRAPH = ".routes", ".onnx"


def workers_routes(settings: Settings) -> FileShelf:
    """For the workers of one state directory, which share what they map."""
    return FileShelf(Path(settings.state.dir) / FOLDER, ROUTES)


def commands_routes(settings: Settings) -> FileShelf | Shelves | None:
    """For commands: they take what workers have fitted, and keep their own in the user's cache, leaving no state behind."""
    user, state = user_shelf(os.environ, ROUTES), workers_routes(settings)
    if not Path(settings.state.dir).is_dir():
        return user
    return state if user is None else Shelves(user, state)


def graphs(settings: Settings) -> FileShelf:
    """The model of the second stage, which is the same for all routes."""
    return user_shelf(os.environ, GRAPH) or FileShelf(Path(settings.state.dir) / FOLDER, GRAPH)


def to_be_fitted(settings: Settings) -> bool:
    """Does something that workers need still have to be made?"""
    if not asked(settings) & OF_ROUTES:
        return False
    shelf = workers_routes(settings)
    if not shelf.has(routes_key(settings.routes)):
        return True
    second = settings.routing.second is not None
    return second and not (shelf.has(routes_key(settings.routes, second=True)) and graphs(settings).has(graph_key()))
