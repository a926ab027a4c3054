"""A back end's channel beside bare clients of the same back end: what both have done, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.rounds import Range, Throughput

__all__ = ["Compared", "said", "shown"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Rounds of the same thing by the bare clients and by the mesh."""

    bare: Sequence[Throughput]
    mesh: Sequence[Throughput]

    def row(self, what: str) -> tuple[str, ...]:
        ratio = Range.of([ours.deliveries_per_s / its.deliveries_per_s for ours, its in zip(self.mesh, self.bare, strict=True)])
        sides = [
            (Range.of([one.deliveries_per_s for one in side]), Range.of([one.cpu_us for one in side]))
            for side in (self.bare, self.mesh)
        ]
        (bare_speed, bare_cpu), (mesh_speed, mesh_cpu) = sides
        return (
            what, shown(bare_speed, ",.0f"), shown(mesh_speed, ",.0f"), shown(ratio, ".0%"),
            shown(bare_cpu, ".0f"), shown(mesh_cpu, ".0f"),
        )  # fmt: skip


def shown(values: Range, form: str) -> str:
    if values.low == values.high:
        return f"{values.middle:{form}}"
    return f"{values.middle:{form}} ({values.low:{form}} to {values.high:{form}})"


def said(*lines: str) -> list[str]:
    print("\n".join(lines), end="\n\n", flush=True)
    return [*lines, ""]
