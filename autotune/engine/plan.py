"""Launch plans: what exactly runs on which node for one trial. Pure.

In: a search space, a candidate and free ports. Out: a `LaunchPlan` with one argv per rank.
Everything a launcher or an exporter needs is in the plan; neither builds argv itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from autotune.engine.dialects import dialect_of
from autotune.space import Candidate, ContainerSettings, Mount, Node, SearchSpace


@dataclass(frozen=True)
class RankPlan:
    """One rank of the engine on one node; `argv` is complete, `name` unique among running trials."""

    rank: int
    node: Node
    name: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def never() -> bool:
    """Tell that nothing was called off."""
    return False


@dataclass(frozen=True)
class LaunchPlan:
    """One engine over all its nodes, in rank order. `engine` names its dialect.

    `is_called_off`: whether nobody wants the engine any more, so that its start need not be waited for.
    """

    engine: str
    version: str
    image: str | None
    ranks: tuple[RankPlan, ...]
    mounts: tuple[Mount, ...]
    container: ContainerSettings
    environment_from: tuple[str, ...]
    host: str
    port: int
    rendezvous_port: int
    ready_timeout_s: float
    labels: tuple[tuple[str, str], ...]
    ranks_meeting_at: Callable[[int], tuple[RankPlan, ...]] = field(repr=False, compare=False)
    is_called_off: Callable[[], bool] = field(default=never, repr=False, compare=False)

    @property
    def base_url(self) -> str:
        """Where rank 0 serves."""
        return f"http://{self.host}:{self.port}"

    def meeting_at(self, rendezvous_port: int) -> "LaunchPlan":
        """Return the same plan with another port to meet at."""
        ranks = self.ranks_meeting_at(rendezvous_port)
        return replace(self, ranks=ranks, rendezvous_port=rendezvous_port)


def plan_launch(
    space: SearchSpace,
    candidate: Candidate,
    *,
    study: str,
    trial: str,
    port: int | None = None,
    rendezvous_port: int | None = None,
) -> LaunchPlan:
    """Return the plan of one trial; ports default to the space's."""
    rendezvous_port = rendezvous_port or space.rendezvous_port
    dialect = dialect_of(space.engine)
    serving_port = port or space.port

    def ranks_meeting_at(rendezvous_port: int) -> tuple[RankPlan, ...]:
        return tuple(
            RankPlan(
                rank=rank,
                node=node,
                name=f"autotune-{study}-{trial}-{node.name}",
                argv=dialect.argv(
                    space, candidate, rank=rank, port=serving_port, rendezvous_port=rendezvous_port
                ),
                environment=tuple(sorted(space.environment.items())),
            )
            for rank, node in enumerate(space.nodes)
        )

    return LaunchPlan(
        engine=space.engine,
        version=space.version,
        image=space.image,
        ranks=ranks_meeting_at(rendezvous_port),
        mounts=space.mounts,
        container=space.container,
        environment_from=space.environment_from,
        host=space.nodes[0].address,
        port=serving_port,
        rendezvous_port=rendezvous_port,
        ready_timeout_s=space.ready_timeout_s,
        labels=(("autotune.study", study), ("autotune.trial", trial)),
        ranks_meeting_at=ranks_meeting_at,
    )
