"""Arms: who decides in a run, by name. All else, the graph and the four tools included, is the same for all of them.

The closed forms end after their one candidate, or the few that they are tried with. The others start from closed
forms, `initial` and `vary` name the operators that make candidates, and survivors are chosen by the brain or are
simply the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from self_pruner.prompts.files import USUAL

ArmName = Literal[
    "hybrid",
    "self",
    "self-init",
    "self-ops",
    "evolution",
    "cma",
    "trust-region",
    "best-of-n",
    "random",
    "sensitivity",
    "ends",
    "uniform-mlp",
    "atp",
    "owl",
    "flap",
    "llm-pruner",
    "uniform",
]
ARM_NAMES: tuple[ArmName, ...] = get_args(ArmName)
ClosedForm = Literal["uniform", "uniform-mlp", "ends", "atp", "llm-pruner", "owl", "flap", "sensitivity"]

# Who makes a candidate. "brain" is asked; "chance" picks at random among the very calls that the brain may choose from;
# "rule" states the hypotheses of a plan where the brain does not; the others are the tool's own operators.
OffspringProposer = Literal["brain", "chance", "rule", "switch", "cross", "model", "cma", "random"]
OFFSPRING_PROPOSERS: tuple[OffspringProposer, ...] = get_args(OffspringProposer)


@dataclass(frozen=True, slots=True)
class Arm:
    """Who decides what in one run."""

    name: ArmName
    meaning: str
    closed_forms: tuple[ClosedForm, ...]
    initial: tuple[OffspringProposer, ...] = ()  # who fills up the first population, in equal shares
    vary: tuple[OffspringProposer, ...] = ()  # who makes offspring; more than one earn their shares
    steps: float | None = None  # of the offspring, the share of "model" where it is not earned
    survive: Literal["brain", "best"] = "best"
    plans: bool = False  # whether the brain states a plan for each generation, which the operators follow
    inherits: bool = True  # whether offspring vary the survivors, and not the closed forms again and again
    prompt_set: str = "default"

    @property
    def searches(self) -> bool:
        """Whether it does more than evaluate its closed forms."""
        return bool(self.initial or self.vary)

    @property
    def asks_brain(self) -> bool:
        """Whether a brain has any say in it."""
        return "brain" in (*self.initial, *self.vary, self.survive)

    @property
    def learns(self) -> bool:
        """Whether it fits a surrogate to what it measures."""
        return "model" in (*self.initial, *self.vary)

    @property
    def probes(self) -> bool:
        """Whether anything in it follows from the sensitivity probes, so that it is charged for them."""
        return "sensitivity" in self.closed_forms or bool({"model", "chance"} & {*self.initial, *self.vary})


INFORMED: tuple[ClosedForm, ...] = ("uniform", "ends", "sensitivity")  # of different basins: attention whole, and cut

_ALL = (
    Arm(
        "hybrid",
        "the brain plans, the tool's operators follow; three quarters of the offspring are trust-region steps, and "
        "whoever makes the rest has the share that its yield earns",
        INFORMED,
        initial=("model",),
        vary=("brain", "chance", "model"),
        steps=0.75,
        plans=True,
        prompt_set=USUAL,
    ),
    Arm(
        "self",
        "the brain alone: it initialises, crosses, mutates and selects",
        ("uniform",),
        initial=("brain",),
        vary=("brain",),
        survive="brain",
        prompt_set="paper",
    ),
    Arm(
        "self-init",
        "the brain initialises, plain evolution does the rest",
        ("uniform",),
        initial=("brain",),
        vary=("switch", "cross"),
        prompt_set="paper",
    ),
    Arm(
        "self-ops",
        "the brain varies, plain evolution does the rest",
        INFORMED,
        initial=("switch",),
        vary=("brain",),
        prompt_set="paper",
    ),
    Arm(
        "evolution",
        "elitist evolution by level switches and crossover, with a step that adapts",
        INFORMED,
        initial=("switch",),
        vary=("switch", "cross"),
    ),
    Arm("cma", "CMA-ES on relaxed widths, projected", INFORMED, initial=("cma",), vary=("cma",)),
    Arm(
        "trust-region",
        "trust-region steps on the quadratic model of the fitness, and nothing else",
        INFORMED,
        initial=("model",),
        vary=("model",),
    ),
    Arm(
        "best-of-n",
        "variations of the best closed form, never of each other: what iterating is worth",
        INFORMED,
        initial=("switch",),
        vary=("switch",),
        inherits=False,
    ),
    Arm("random", "random profiles", ("uniform",), initial=("random",), vary=("random",)),
    Arm("sensitivity", "the additive optimum of single-place probes, at several shares of attention", ("sensitivity",)),
    Arm("ends", "attention, the first and the last layers whole, all other MLPs alike", ("ends",)),
    Arm("uniform-mlp", "attention whole, all MLPs alike", ("uniform-mlp",)),
    Arm("atp", "rates that rise with depth in an arithmetic progression", ("atp",)),
    Arm("owl", "rates by outlier ratio", ("owl",)),
    Arm("flap", "a global threshold on standardised WIFV", ("flap",)),
    Arm("llm-pruner", "the first and the last layers whole, equal rates in all others", ("llm-pruner",)),
    Arm("uniform", "equal rates", ("uniform",)),
)
ARMS: dict[str, Arm] = {arm.name: arm for arm in _ALL}
