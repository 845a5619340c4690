"""Both stages of routes, ready for use: the first, which is in the box, and the second, where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from policies.contributions import Wordwise, route_contributions
from policies.semantic import Cascade, Placed, Semantics
from policies.stages import ASKED
from proxy.config_decisions import SecondStagePart
from proxy.config_routes import RoutePart
from proxy.minilm import JointEmbedding, NotInstalled, load_minilm
from proxy.minilm import Shelf as GraphShelf
from proxy.routing_models import Shelf, fitted_on, load_embedding
from proxy.routing_names import routes_key
from proxy.second_stage import SecondStage

OF_MARGINS = 0.5
"""Of the share, what is spent on the smallest margins of held-out examples; the rest is for the border of the scope, and for
traffic that is harder than the examples: of CLINC150's validation rows 17 % come to ask of a share of 20 %."""


class Stages(Struct, frozen=True):
    """What places texts.  `both`: None where no second stage is asked for, or `why` it cannot be had."""

    first: Semantics
    embedding: Wordwise  # of the first, and of the second
    both: Cascade | None = None
    joint: Wordwise | None = None
    why: str = ""

    def place(self, text: str) -> Placed:
        """By both where there are two, as often as the first is unsure: for evaluations and explanations."""
        return self.first.place(text) if self.both is None else self.both.place(text)

    def contributions(self, placed: Placed, text: str) -> list[tuple[str, float]]:
        """What the score of the best route is the sum of, by the stage that placed the text."""
        second = placed.second == ASKED and self.both is not None and self.joint is not None
        semantics = self.both.second if second and self.both is not None else self.first
        embedding = self.joint if second and self.joint is not None else self.embedding
        return route_contributions(semantics.fitted, placed, embedding, text)

    def live(self, part: SecondStagePart, count: Callable[[str], None] | None = None) -> SecondStage:
        """The second stage for live requests.  One that cannot be had is broken: whoever would have asked it says so."""
        if self.both is not None:
            self.both.second.place(self.first.fitted.names[0])  # its first answer takes several times as long
            return SecondStage(self.both.unsure, self.both.again, share=part.share, deadline=part.deadline, count=count)
        why = self.why

        def absent(text: str, placed: Placed) -> Placed:
            raise NotInstalled(why)

        alone = Cascade(self.first, self.first, part.share * OF_MARGINS)
        return SecondStage(alone.unsure, absent, share=part.share, deadline=part.deadline, count=count)


def load_stages(
    parts: Sequence[RoutePart],
    second: SecondStagePart | None,
    shelf: Shelf | None,
    graphs: GraphShelf | None,
    *,
    fitting: Callable[[int], None] | None = None,
) -> Stages:
    """Both stages, fitted or as they were kept.  `graphs` keeps the second's model, `fitting` hears of how many utterances
    a fit is.  Raises ValueError, as `policies.semantic.learn` does."""
    embedding, _ = load_embedding()
    first = Semantics(fitted_on(parts, embedding, routes_key(parts), shelf, fitting), embedding)
    if second is None:
        return Stages(first, embedding)
    try:
        deep, _ = load_minilm(embedding.vocabulary, graphs)
    except NotInstalled as why:
        return Stages(first, embedding, why=str(why))
    joint = JointEmbedding(embedding.twin(), deep)  # it is read in another thread
    fitted = fitted_on(parts, joint, routes_key(parts, second=True), shelf, fitting)
    both = Cascade(first, Semantics(fitted, joint), second.share * OF_MARGINS)
    return Stages(first, embedding, both, joint)
