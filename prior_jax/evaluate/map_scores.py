"""Scores of one attention map against the mask of a finding."""

import numpy as np

# Values this close to the maximum, relative to it, count as equal to it: float32 rounding is 1e-7.
_TIE = 1e-6


def pointing_hit(attention: np.ndarray, mask: np.ndarray) -> float:
    """Computes whether the maximum lies in the mask.

    Args:
      attention: attention of the pixels, float[H, W], finite.
      mask: mask of the finding, bool[H, W].

    Returns:
      1.0 or 0.0; where several pixels share the maximum, the share of them in the mask: a constant
      map scores as a random pixel does.
    """
    greatest = attention.max()
    return float(mask[attention >= greatest - _TIE * abs(greatest)].mean())


def attention_ratio(attention: np.ndarray, mask: np.ndarray) -> float:
    """Computes the attention in the mask divided by that of uniform attention; 1 is chance.

    Args:
      attention: attention of the pixels, float[H, W], >= 0.
      mask: mask of the finding, bool[H, W], not empty.

    Returns:
      The ratio; NaN if all attention is 0.
    """
    total = attention.sum()
    return float(attention[mask].sum() / total / mask.mean()) if total > 0 else float("nan")


def contrast_to_noise(attention: np.ndarray, mask: np.ndarray) -> float:
    """Computes the difference of the means inside and outside, in units of their spread.

    Args:
      attention: attention of the pixels, float[H, W].
      mask: mask of the finding, bool[H, W], neither empty nor full.

    Returns:
      Ratio (mean inside - mean outside) / sqrt(variance inside + variance outside); 0 if the
      attention is constant.

    Source: CNR of BioViL, arXiv:2204.09817, sec. 4.3. Differs: keeps the sign, so that attention
      outside the finding does not increase the score.
    """
    inside, outside = attention[mask], attention[~mask]
    spread = np.sqrt(inside.var() + outside.var())
    # Rounding in the upsampling does not count as spread.
    flat = spread <= _TIE * np.abs(attention).max()
    return 0.0 if flat else float((inside.mean() - outside.mean()) / spread)
