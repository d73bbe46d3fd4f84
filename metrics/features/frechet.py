"""Frechet Inception distance (Heusel et al. 2017, arXiv 1706.08500, section 3).

|m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)) for the means and covariances of two sets of features.
Shapes: n pictures, d features (2048). All of the distance is computed in float64; covariances divide by n-1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from util.errors import UserError


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Return the Frechet distance of two Gaussians fitted to features (n,d) and (m,d).

    Full-rank sets take a Cholesky factor and one symmetric eigenproblem. Where a covariance is singular (always for
    n <= d) that and every matrix-square-root routine lose four digits; the nuclear norm of the centred cross-Gram
    matrix is exact there.

    Raises:
        UserError: fewer than two pictures in a set, or a feature that is not finite.
        ValueError: features of different width.
    """
    a, b = _checked(features_a, "generated"), _checked(features_b, "real")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of width {a.shape[1]} and {b.shape[1]} cannot be compared")
    shift = a.mean(0) - b.mean(0)
    root_a = (a - a.mean(0)) / (len(a) - 1) ** 0.5  # root^T root = covariance
    root_b = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    cross = None
    if min(len(a), len(b)) > a.shape[1]:
        cross = trace_sqrt_cholesky(root_a, root_b)
    if cross is None:
        cross = trace_sqrt_svd(root_a, root_b)
    distance = shift.square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * cross
    return max(float(distance), 0.0)  # rounding can leave -1e-12 for equal sets


def trace_sqrt_svd(root_a: Tensor, root_b: Tensor) -> Tensor:
    """Tr sqrt(S1 S2) as the sum of the singular values of R1 R2^T, where S = R^T R; exact at any rank."""
    values: Tensor = torch.linalg.svdvals(_narrow(root_a) @ _narrow(root_b).T)
    return values.sum()


def trace_sqrt_cholesky(root_a: Tensor, root_b: Tensor) -> Tensor | None:
    """Tr sqrt(S1 S2) as the sum of square roots of the eigenvalues of L^T S2 L, S1 = L L^T; None if S1 is singular."""
    lower, failed = torch.linalg.cholesky_ex(root_a.T @ root_a)
    if failed:
        return None
    half = root_b @ lower
    values: Tensor = torch.linalg.eigvalsh(half.T @ half)
    return values.clamp(min=0).sqrt().sum()


def _narrow(root: Tensor) -> Tensor:
    """Replace a tall matrix by its triangular factor, which has the same R^T R."""
    return torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def _checked(features: Tensor, which: str) -> Tensor:
    if len(features) < 2:
        raise UserError(
            f"FID needs at least two {which} pictures, got {len(features)}: "
            "raise --num_images or drop fid from --metrics"
        )
    if not bool(torch.isfinite(features).all()):
        raise UserError(f"FID: the features of the {which} pictures are not finite; check the Inception weights")
    return features.detach().to("cpu", torch.float64)


class Resampled:
    """Frechet distances of resamples of two sets of features, from what needs to be computed only once.

    Args:
        features_a: (n,d); features_b: (m,d).
    """

    def __init__(self, features_a: Tensor, features_b: Tensor) -> None:
        self.a, self.b = _checked(features_a, "generated"), _checked(features_b, "real")
        self.small = max(len(self.a), len(self.b)) <= self.a.shape[1]
        if self.small:  # the distance needs only Gram matrices: no work of size d remains
            self.aa, self.bb, self.ab = self.a @ self.a.T, self.b @ self.b.T, self.a @ self.b.T

    def distance(self, times_a: Tensor, times_b: Tensor) -> float:
        """Return the distance with the rows counted `times_a` (n,) and `times_b` (m,) int; NaN for fewer than two."""
        if min(int(times_a.sum()), int(times_b.sum())) < 2:
            return float("nan")
        if not self.small:
            return frechet_distance(self.a.repeat_interleave(times_a, 0), self.b.repeat_interleave(times_b, 0))
        kept_a, kept_b = times_a.nonzero().flatten(), times_b.nonzero().flatten()
        w_a, w_b = times_a[kept_a].double(), times_b[kept_b].double()
        aa, bb = self.aa[kept_a][:, kept_a], self.bb[kept_b][:, kept_b]
        ab = self.ab[kept_a][:, kept_b]
        share_a, share_b = w_a / w_a.sum(), w_b / w_b.sum()
        mean_aa, mean_bb, mean_ab = share_a @ aa @ share_a, share_b @ bb @ share_b, share_a @ ab @ share_b
        trace_a = (w_a @ aa.diagonal() - w_a.sum() * mean_aa) / (w_a.sum() - 1)
        trace_b = (w_b @ bb.diagonal() - w_b.sum() * mean_bb) / (w_b.sum() - 1)
        centred = ab - (ab @ share_b)[:, None] - share_a @ ab + mean_ab
        cross = torch.linalg.svdvals(w_a.sqrt()[:, None] * centred * w_b.sqrt()).sum()
        cross = cross / ((w_a.sum() - 1) * (w_b.sum() - 1)).sqrt()
        distance = mean_aa + mean_bb - 2 * mean_ab + trace_a + trace_b - 2 * cross
        return max(float(distance), 0.0)
