"""`why`: which decisions led to the profile that was found, or to the widths of one of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from self_pruner.agent.report.trace_view import check_begun
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import MemoryFileError, RunDirectoryError, SettingsError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.memory.read_only import read_rows
from self_pruner.memory.records import FITNESS
from self_pruner.tools.profiles.selection import Paired, paired

MOST = 6  # changed places that a line names
WHO = {
    "seed": "a closed form",
    "memory": "the best of an earlier run",
    "fallback": "the tool",  # whether in the brain's place, its detail says
}


@dataclass(frozen=True)
class Origin:
    """The candidates of a run, their scores, and which of them is its result."""

    rows: Mapping[str, Mapping[str, Any]]  # by id
    scores: Mapping[str, Mapping[int, float]]  # KL by profile and sequence
    result: str

    def profile(self, name: str) -> Profile:
        """The profile of a candidate."""
        return Profile.from_key(self.rows[name]["profile"])

    def parent(self, name: str, place: tuple[int, Part] | None = None) -> str | None:
        """Whose change a candidate is: of two parents the nearer one, or that whose width it has at a place."""
        profile = self.profile(name)

        def distance(parent: str) -> int:
            other = self.profile(parent)
            if place is not None:
                return abs(other.widths(place[1])[place[0]] - profile.widths(place[1])[place[0]])
            return sum(
                abs(a - b) for part in PARTS for a, b in zip(profile.widths(part), other.widths(part), strict=True)
            )

        parents = [parent for parent in self.rows[name]["parents"] if parent in self.rows]
        return min(parents, key=distance, default=None)

    def line(self, place: tuple[int, Part] | None = None) -> Iterator[tuple[str, str | None]]:
        """The result and its parent, that one and its own, and so on to what the run began with."""
        name: str | None = self.result
        seen: set[str | None] = set()  # in a damaged file a candidate may descend from itself
        while name is not None:
            seen.add(name)
            parent = self.parent(name, place)
            parent = None if parent in seen else parent
            yield name, parent
            name = parent

    def proposer(self, name: str) -> str:
        """Who made a candidate, and how."""
        row = self.rows[name]
        who = WHO.get(row["proposed_by"], f"{row['proposed_by']}, generation {row['generation']}")
        detail = row["detail"].removeprefix(f"{who.removeprefix('a ')}: ")  # "closed form" is of both
        return f"{name} ({who}{': ' + detail if detail not in ('', 'whole vectors') else ''})"

    def gain(self, name: str, parent: str) -> str:
        """What a candidate measured against its parent on the sequences that both were measured on."""
        found = measured_change(self.scores, *(self.rows[one]["profile"] for one in (name, parent)))
        return "" if found is None else f", fitness {found.mean:+.4f} ± {found.standard_error:.4f}"


def read_origin(run: RunDirectory) -> Origin:
    """What the run's own file holds of its candidates.

    Raises:
        RunDirectoryError: it has no candidate yet.
        MemoryFileError: the file is missing or damaged.
    """
    rows, settings = read_rows(run.records, run.id), make_settings(run.settings)
    candidates = {row["id"]: row for row in rows["candidate"]}
    outcome = read_outcome(run.path)
    if outcome is not None:
        key = Profile(tuple(outcome.attention), tuple(outcome.mlp)).key()
        found = [name for name, row in candidates.items() if row["profile"] == key]
    else:
        found = [row["best"] for row in rows["generation"][-1:]]
    if not found or found[0] not in candidates:
        raise RunDirectoryError(f"nothing was found yet in {run.path}: no generation of its search is closed")
    return Origin(candidates, scores_of(rows, settings.sequences(settings.fidelity[-1])), found[0])


def scores_of(rows: Mapping[str, Sequence[Mapping[str, Any]]], ranked: int) -> dict[str, dict[int, float]]:
    """KL by profile on the first `ranked` sequences of the fitness text, from the rows of a run's own file.

    What follows these is the holdout, which few were measured on.
    """
    scores: dict[str, dict[int, float]] = {}
    for row in rows["score"]:
        if row["text"] == FITNESS and row["kl"] is not None and row["sequence"] < ranked:
            scores.setdefault(row["profile"], {})[row["sequence"]] = row["kl"]
    return scores


def measured_change(scores: Mapping[str, Mapping[int, float]], profile: str, other: str) -> Paired | None:
    """The fitness of a profile less that of another, by their keys; None where they share fewer than two sequences."""
    own, others = scores.get(profile, {}), scores.get(other, {})
    both = sorted(own.keys() & others.keys())
    return paired([own[index] for index in both], [others[index] for index in both]) if len(both) > 1 else None


def why(path: Path, layer: int | None, view: View) -> None:
    """Print what led to the result of a run, or to the widths of one layer of it.

    Raises:
        SelfPrunerError: no run, nothing found yet, or no such layer.
    """
    run = RunDirectory.open(path, strict=False)
    check_begun(run)
    origin = read_origin(run)
    try:
        if layer is None:
            _whole(origin, view)
            return
        layers = origin.profile(origin.result).n_layers
        if not 0 <= layer < layers:
            raise SettingsError(f"--layer: layers are 0 to {layers - 1}, got {layer}")
        for part in PARTS:
            _place(origin, layer, part, view)
    except (ValueError, IndexError) as error:  # a profile that no program wrote
        raise MemoryFileError(f"{run.records} is damaged: it holds a row that is none") from error


def _whole(origin: Origin, view: View) -> None:
    for name, parent in origin.line():
        if parent is None:
            view.line(f"{origin.proposer(name)}: where it began")
            continue
        before, after = origin.profile(parent), origin.profile(name)
        changes = [
            (abs(new - old), f"layer {layer} {part} {old} to {new}")
            for part in PARTS
            for layer, (old, new) in enumerate(zip(before.widths(part), after.widths(part), strict=True))
            if old != new
        ]
        largest = [words for _, words in sorted(changes, key=lambda change: -change[0])[:MOST]]
        more = f" and {len(changes) - MOST} places more" if len(changes) > MOST else ""
        view.line(f"{origin.proposer(name)} from {parent}{origin.gain(name, parent)}: {', '.join(largest)}{more}")


def _place(origin: Origin, layer: int, part: Part, view: View) -> None:
    """The changes of one width, the latest first."""
    view.line(f"layer {layer} {part}: {origin.profile(origin.result).widths(part)[layer]} units", "bold")
    for name, parent in origin.line((layer, part)):
        width = origin.profile(name).widths(part)[layer]
        if parent is None:
            view.line(f"  {width} in {origin.proposer(name)}, where it began")
        elif (before := origin.profile(parent).widths(part)[layer]) != width:
            view.line(f"  {before} to {width} by {origin.proposer(name)} from {parent}{origin.gain(name, parent)}")
