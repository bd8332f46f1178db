"""`recall_candidates`: looks up candidates and scores in the memory, of this run or of earlier ones; it only reads."""

from __future__ import annotations

import json

from langchain_core.tools import BaseTool, tool
from pydantic import BaseModel, Field

from self_pruner.agent.search.initial_population import earlier_candidates
from self_pruner.memory.records import Candidate
from self_pruner.tools.workbench import Workbench

MOST = 16  # candidates of one answer


class RecallArguments(BaseModel):
    """Arguments of `recall_candidates`."""

    count: int = Field(4, ge=1, le=MOST, description="how many, the best first")
    earlier: bool = Field(False, description="those of earlier runs of this model instead of this run's")


def recall_candidates_tool(bench: Workbench) -> BaseTool:
    """The LangChain tool `recall_candidates` on `bench`."""

    @tool("recall_candidates", args_schema=RecallArguments)
    def recall_candidates(count: int = 4, earlier: bool = False) -> str:
        """Look up the best candidates with their widths: of this run, or of earlier runs of this model."""
        rows = earlier_candidates(bench) if earlier else bench.memory.recall(Candidate, run=bench.run)
        scored = [
            (found.kl, row) for row in rows if (found := bench.known_fitness(row.profile)) and found.kl is not None
        ]
        best = sorted(scored, key=lambda pair: (pair[0], pair[1].run, pair[1].id))[:count]
        return json.dumps(
            {
                "found": [
                    {
                        "id": row.id,
                        **({"run": row.run} if earlier else {}),
                        "fitness": round(fitness, 5),
                        "params": row.params,
                        "proposed_by": row.proposed_by,
                        "attention": list(row.profile.attention),
                        "mlp": list(row.profile.mlp),
                    }
                    for fitness, row in best
                ]
            }
        )

    return recall_candidates
