"""The choice of patients that keeps each finding's share: iterative stratification."""

import numpy as np


def choose(positive: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Chooses patients at random, of whom each finding has the share that it has among all.

    The finding with the fewest patients that are not yet decided comes first: of its patients as
    many are chosen as are missing from its share, and the others are left out. In the end patients
    without a finding fill the number up. A finding whose share rounds to 0 patients gets none.

    Args:
      positive: whether each of P patients has each of L findings, bool[P, L].
      count: number of patients to choose, at most P.
      seed: seed of the draw.

    Returns:
      Rows of the chosen patients, int64[count], ascending.

    Source: Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, ECML PKDD
      2011, algorithm 1, with two subsets. Differs: the patients of a finding are shuffled, since in
      their order the smaller subset would get the last ones, and `count` is kept exactly.
    """
    state = np.random.RandomState(seed)
    wanted = positive.sum(axis=0) * (count / len(positive))
    chosen = np.zeros(len(positive), bool)
    undecided = np.ones(len(positive), bool)
    while (left := positive[undecided].sum(axis=0)).any():
        finding = int(np.argmin(np.where(left > 0, left, np.inf)))
        members = np.flatnonzero(undecided & positive[:, finding])
        missing = round(float(wanted[finding]) - int(positive[chosen, finding].sum()))
        missing = min(max(missing, 0), count - int(chosen.sum()))
        chosen[state.permutation(members)[:missing]] = True
        undecided[members] = False
    for others in (undecided, ~undecided):  # those without a finding come first
        rest = state.permutation(np.flatnonzero(others & ~chosen))
        chosen[rest[: count - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)
