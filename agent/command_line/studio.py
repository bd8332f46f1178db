"""The search in LangGraph Studio: `langgraph dev` in the folder of langgraph.json opens it.

What one submits there is a few settings. The run goes its ordinary way, in a thread of its own, up to its search; the
turns of that are then taken by Studio's graph, whose nodes are those of `agent/search/graph.py`; then the run goes on
to its result. Nothing is loaded before something is submitted. There is one run at a time, for there is one model.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Thread
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from self_pruner.agent import session
from self_pruner.agent.prepare.run import Run
from self_pruner.agent.result.outcome import Outcome
from self_pruner.agent.search.graph import STEP_LIMIT, Recorder, act, wired
from self_pruner.agent.search.initial_population import spent_on_probes
from self_pruner.agent.search.judge import Judgement
from self_pruner.agent.search.state import SearchState, first_state
from self_pruner.agent.search.think import Thinker
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError


@dataclass(kw_only=True)
class Asked:
    """What one submits: settings by their names, and `candidates` for --evaluations."""

    model: str = "smollm2-135m"
    sparsity: float = 0.3
    arm: str = "hybrid"
    brain: str = "self"
    candidates: int = 12
    seed: int = 0


@dataclass(kw_only=True)
class Found:
    """What comes of it: the run's directory, why the search ended, and the figures of the final table."""

    directory: str = ""
    stop: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StudioState(SearchState):
    """The state of the search, beside what was submitted and what comes of it."""

    model: str = Asked.model
    sparsity: float = Asked.sparsity
    arm: str = Asked.arm
    brain: str = Asked.brain
    candidates: int = Asked.candidates
    seed: int = Asked.seed
    directory: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)


class LentSearch:
    """A run whose search somebody else takes through its turns."""

    def __init__(self, asked: Asked, thread: str) -> None:
        """Begin the run, and wait until its search may begin.

        Raises:
            SelfPrunerError: it cannot begin.
        """
        self.thread = thread
        values = asdict(asked)
        settings = make_settings({"evaluations": values.pop("candidates"), "export": False, **values})
        self.lent: Future[tuple[Thinker, Judgement, list[str]]] = Future()
        self.searched: Future[SearchState] = Future()
        self.ended: Future[tuple[Path, Outcome]] = Future()
        Thread(target=self._carry_out, args=(settings,), daemon=True).start()
        either: list[Future[Any]] = [self.lent, self.ended]
        wait(either, return_when=FIRST_COMPLETED)
        if self.ended.done():
            self.ended.result()
        self.thinker, self.judge, self.seeds = self.lent.result()
        self.act = act(self.thinker.bench, Recorder(self.thinker.trace))

    def _carry_out(self, settings: Settings) -> None:
        try:
            self.ended.set_result(session.start(settings, View(), self._lend))
        except BaseException as error:  # it is raised where somebody waits for it
            self.ended.set_exception(error)

    def _lend(self, run: Run, thinker: Thinker, judge: Judgement, seeds: list[str]) -> SearchState:
        """What the run calls to have its search done."""
        self.run = run
        run.directory.checkpoint.touch()  # from here on an error does not remove the directory
        self.lent.set_result((thinker, judge, seeds))
        return self.searched.result()

    def give_up(self) -> None:
        """Let the run end as one that was stopped."""
        if not self.searched.done():
            self.searched.set_exception(session.Stopped(self.run.directory.path))
        wait([self.ended])


_lent: LentSearch | None = None  # of this process


def begin(state: Asked, config: RunnableConfig) -> dict[str, Any]:
    """Begin a run with the settings that were submitted; one that was left unfinished is stopped."""
    global _lent
    if _lent is not None:
        _lent.give_up()
        _lent = None
    _lent = LentSearch(state, _thread(config))
    first = first_state(_lent.seeds, spent_on_probes(_lent.thinker.bench))
    return {**vars(first), "directory": str(_lent.run.directory.path), "rows": []}


def think(state: SearchState, config: RunnableConfig) -> dict[str, Any]:
    """The run's own `think`."""
    return _of(config).thinker(state)


def act_on(state: SearchState, config: RunnableConfig) -> Any:
    """The run's own `act`."""
    return _of(config).act.invoke(state, config)


def judge(state: SearchState, config: RunnableConfig) -> dict[str, Any]:
    """The run's own `judge`."""
    return _of(config).judge(state)


def finish(state: SearchState, config: RunnableConfig) -> dict[str, Any]:
    """Let the run choose, recalibrate and report."""
    global _lent
    lent, _lent = _of(config), None
    lent.searched.set_result(SearchState(**{one.name: getattr(state, one.name) for one in fields(SearchState)}))
    directory, outcome = lent.ended.result()
    return {"directory": str(directory), "rows": [row.model_dump(mode="json") for row in outcome.rows]}


def graph() -> CompiledStateGraph:
    """What langgraph.json names."""
    whole = StateGraph(StudioState, input_schema=Asked, output_schema=Found)
    whole.add_node("begin", begin)
    whole.add_node("search", wired(think, act_on, judge).compile())
    whole.add_node("finish", finish)
    whole.add_edge(START, "begin")
    whole.add_edge("begin", "search")
    whole.add_edge("search", "finish")
    whole.add_edge("finish", END)
    return whole.compile().with_config(recursion_limit=STEP_LIMIT)


def _thread(config: RunnableConfig) -> str:
    return str(config.get("configurable", {}).get("thread_id"))


def _of(config: RunnableConfig) -> LentSearch:
    """The search of this thread.

    Raises:
        RunDirectoryError: the server was started anew since, or another one was begun.
    """
    if _lent is None or _lent.thread != _thread(config):
        raise RunDirectoryError("this search is not going on any more: submit its settings again")
    return _lent
