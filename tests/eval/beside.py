"""Microsoft Presidio's pattern recognisers over texts, run in an environment of their own (`.bench/presidio`).

    .bench/presidio/bin/python tests/eval/beside.py < texts.jsonl > spans.jsonl

A line in is a JSON string; a line out is `[milliseconds, [[type, start, end], ...]]`.  Its names and places come from
a spaCy model (`en_core_web_lg`, 400 MB); where that is not installed the recognisers that need none run alone, and
the first line out says so.
"""

import json
import sys
import time

import spacy
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider, SpacyNlpEngine

MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")


class _Blank(SpacyNlpEngine):
    """spaCy's tokenizer alone: the pattern recognisers ask for no more."""

    def __init__(self) -> None:
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        self.nlp = {"en": spacy.blank("en")}

    def load(self) -> None:
        pass


def engine() -> tuple[str, AnalyzerEngine]:
    for model in MODELS:
        if spacy.util.is_package(model):
            configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
            provider = NlpEngineProvider(nlp_configuration=configuration)
            return model, AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])
    return "patterns alone", AnalyzerEngine(nlp_engine=_Blank(), supported_languages=["en"])


def main() -> None:
    name, analyzer = engine()
    print(json.dumps(name))
    for line in sys.stdin:
        text = json.loads(line)
        began = time.perf_counter()
        found = analyzer.analyze(text, language="en")
        took = (time.perf_counter() - began) * 1e3
        print(json.dumps([took, [[one.entity_type, one.start, one.end] for one in found]]))


if __name__ == "__main__":
    main()
