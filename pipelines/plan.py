"""CPU slots, planned before anything starts.

Ray Data waits without a word when the actors of a graph want more CPUs than the cluster has. So every graph states
what it takes, and a graph that does not fit is a `PlanError` with the numbers. Our graphs read from memory: nothing
but their actors takes a slot.
"""

from dataclasses import dataclass, replace

from studiolo.errors import PlanError


@dataclass(frozen=True)
class Stage:
    """A pool of actors: `actors` processes of `cpus_per_actor` slots each."""

    name: str
    actors: int
    cpus_per_actor: float
    together: int = 1
    """Units that an actor works on at once, each in a thread of its own; more than one for actors that threads may
    share."""
    queued: int = 0
    """Units that wait at an actor while it works: one hides the way of a short unit, behind a long one it waits."""
    limit_s: float = 3600.0
    """A worker that takes longer over a unit, or over a part of one, is ended."""
    memory_mib: int | None = None
    """A worker that takes more memory is ended."""

    @property
    def cpus(self) -> float:
        """CPU slots of the whole pool."""
        return self.actors * self.cpus_per_actor


def fit(stage: Stage, cpus: float, work: int) -> Stage:
    """`stage` with no more actors than there are units of `work`, and no more of these together than leave every actor
    its share, checked against the `cpus` of the cluster.

    Raises `PlanError` with the numbers when the pool does not fit.
    """
    actors = max(1, min(stage.actors, work))
    stage = replace(stage, actors=actors, together=max(1, min(stage.together, -(-work // actors))))
    if stage.cpus > cpus + 1e-6:
        raise PlanError(
            f"stage {stage.name!r} does not fit: {stage.actors} actors x {stage.cpus_per_actor:g} CPU slots = "
            f"{stage.cpus:g}, and the cluster has {cpus:g}; lower {stage.name}.actors or "
            f"{stage.name}.cpus_per_actor, or give more CPUs"
        )
    return stage
