"""Whether what a run with a budget in time found is as fast as was asked for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SpeedFacts(BaseModel):
    """What was asked for, predicted and measured: how many times as fast as the dense model a request is."""

    model_config = ConfigDict(frozen=True)

    asked: float
    predicted: float  # by the table
    measured: float | None  # None where the table is of another device, engine or request
    spread: float | None  # of the measurement: (slowest - fastest) / median of the repeats
    table: str  # what the table is of

    def sentence(self) -> str:
        """Whether the result is as fast as was asked for."""
        words = (
            f"Asked for {self.asked:.2f} times the dense model's speed: the latency table predicts {self.predicted:.2f}"
        )
        if self.measured is None:
            return f"{words}. It is of {self.table}, so nothing was measured here to verify that."
        error = self.measured / self.predicted - 1.0  # of the predicted time, as a share of the measured one
        verdict = "as fast as asked for"
        if self.measured < self.asked:
            short = 1.0 - self.measured / self.asked
            within = self.spread is not None and short <= self.spread
            verdict = f"{short:.1%} short of it" + (", within the spread of the repeats" if within else "")
        spread = "" if self.spread is None else f", spread of the repeats {self.spread:.0%}"
        return (
            f"{words}, measured {self.measured:.2f}: {verdict} (error of the predicted time {error:+.1%}{spread}; "
            f"{self.table})."
        )
