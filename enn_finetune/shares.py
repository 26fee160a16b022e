"""How many rows of each step's batch are drawn uniformly, and how many are of those bought before.

Shares are exact over steps where they are no whole number of rows in one. The clock of the uniform
share is the rows chosen so far, so that no step has more uniform rows than it chooses.
"""

from typing import NamedTuple

_EDGE = 1e-6  # products like 10 * 0.7 may fall short of whole


class Shares(NamedTuple):
    """What a batch is made of: revisited rows, and chosen ones, some of them uniformly."""

    batch: int
    steps: int
    uniform: float
    """Share of the chosen rows that is drawn uniformly, at the first step."""
    anneal: bool
    """The uniform share grows linearly to 1 at the last of `steps`."""
    revisit: float
    """Share of the batch that is of rows bought before."""

    def revisited(self, step: int) -> int:
        """Rows of the step's batch that are of those bought before."""
        return self.batch - (self._chosen_before(step + 1) - self._chosen_before(step))

    def uniform_of(self, step: int) -> int:
        """Rows of the step's batch that are taken as the candidates come."""
        return self._uniform_before(step + 1) - self._uniform_before(step)

    def _chosen_before(self, step: int) -> int:
        """Rows that all steps before `step` choose from candidates."""
        return int(self.batch * (1 - self.revisit) * step + _EDGE)

    def _uniform_before(self, step: int) -> int:
        """Uniform rows of all steps before `step`: the integral of the share, rounded down."""
        chosen, last = self._chosen_before(step), max(1, self._chosen_before(self.steps))
        rows, within = self.uniform * chosen, min(chosen, last)
        if self.anneal:
            rows += (1 - self.uniform) * (within**2 / (2 * last) + chosen - within)
        return int(rows + _EDGE)


def check_shares(uniform: float, revisit: float, *, anneal: bool, steps: int | None) -> None:
    """Refuse shares of a batch that cannot be.

    Raises:
      ValueError: a share outside its range, or annealing towards no last step.
    """
    if not 0 <= uniform <= 1:
        raise ValueError(f"expected 0 <= uniform <= 1, got {uniform=}")
    if not 0 <= revisit < 1:
        raise ValueError(f"expected 0 <= revisit < 1, got {revisit=}")
    if anneal and steps is None:
        raise ValueError("annealing ends at the last step: give steps")
