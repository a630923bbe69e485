"""Operators that users have written for DataFlow: its registry, base classes, logger, typed tables and wrapper."""

from __future__ import annotations

import pytest

from fastgen.dataflow.utils.storage import FileStorage

OWN = """
import pandas as pd
from fastgen.dataflow.utils.registry import OPERATOR_REGISTRY
from fastgen.dataflow import get_logger
from fastgen.dataflow.core import LLMServingABC, OperatorABC, VLMServingABC, WrapperABC, get_operator
from fastgen.dataflow.core.Operator import OperatorABC as SameABC
from fastgen.dataflow.utils.storage import DataFlowStorage


@OPERATOR_REGISTRY.register()
class TopScores(OperatorABC):
    def __init__(self, most: int = 2):
        self.logger = get_logger()
        self.most = most

    @staticmethod
    def get_desc(lang: str = "zh"):
        return "best rows" if lang == "en" else "..."

    def run(self, storage: DataFlowStorage, input_key: str = "score", output_key: str = "rank") -> str:
        dataframe = storage.read("dataframe")
        self.logger.info(f"Loading, number of rows: {len(dataframe)}")
        best = dataframe.nlargest(self.most, input_key).copy()
        best[output_key] = best[input_key].rank(ascending=False)
        best["mean"] = best.mean(numeric_only=True)[input_key]
        self.logger.success(f"saved to {storage.write(best)}")
        return output_key


assert SameABC is OperatorABC
"""


@pytest.fixture
def own():
    space: dict = {}
    exec(OWN, space)
    yield space
    space["OPERATOR_REGISTRY"]._obj_map.pop("TopScores")


def test_an_operator_as_users_write_them_runs(own, storage, written):
    store = storage([{"id": 9007199254740993, "score": 3}, {"id": 1, "score": 1, "note": None}, {"id": 2, "score": 5}])
    operator = own["get_operator"]("TopScores", 2)
    assert operator.run(store) == "rank"
    assert written(store) == [
        {"id": 2, "score": 5, "rank": 1.0, "mean": 4.0},
        {"id": 9007199254740993, "score": 3, "rank": 2.0, "mean": 4.0},
    ]


def test_the_registry_has_ours_and_theirs(own):
    registry = own["OPERATOR_REGISTRY"]
    registry._get_all()
    assert "TopScores" in registry and registry.get("PromptedVQAGenerator").__name__ == "PromptedVQAGenerator"
    assert {"TopScores", "PromptedImageGenerator", "BatchVQAGenerator"} <= set(registry.get_obj_map())
    assert registry.get("PromptedVQAGenerator").get_desc("zh") and "TopScores" in repr(registry)
    with pytest.raises(KeyError, match="Nothing: no such name among the operators"):
        registry.get("Nothing")


def test_a_wrapper_runs_an_operator_part_by_part(told, storage, written, here):
    from fastgen.dataflow.operators.core_vision import FixPromptedVQAGenerator
    from fastgen.dataflow.wrapper import BatchWrapper

    store = storage([{"image": "image.png", "number": i} for i in range(5)])
    BatchWrapper(FixPromptedVQAGenerator(told()), batch_size=2, batch_cache=True).run(store, output_answer_key="said")
    rows = written(store)
    assert [row["number"] for row in rows] == list(range(5)) and {row["said"] for row in rows} == {"1 pictures"}
    assert FileStorage("cache/dataflow_cache_step_step0_batch2_step1.jsonl").step().read("dict") == rows[4:]
