"""Frechet Inception distance (Heusel et al. 2017, arXiv 1706.08500, section 3).

|m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)) for the means and covariances of two sets of features.
Shapes: n and m pictures, d features (2048). All of the distance is computed in float64; covariances divide by n-1.
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


def frechet_influence(features_a: Tensor, features_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each row of (n,d) and (m,d) moves their distance: its derivative by the row's weight, centred.

    With the singular value decomposition U S V^T of R1 R2^T, see `trace_sqrt_svd`, a row's part of the trace term is
    sum_k U_ik^2 S_k; values of 0 add nothing, so that singular covariances need no special case.
    """
    a, b = _checked(features_a, "generated"), _checked(features_b, "real")
    shift = a.mean(0) - b.mean(0)
    root_a, root_b = (x - x.mean(0) for x in (a, b))
    (turn_a, narrow_a), (turn_b, narrow_b) = (_turned(root / (len(root) - 1) ** 0.5) for root in (root_a, root_b))
    left, values, right = torch.linalg.svd(narrow_a @ narrow_b.T, full_matrices=False)
    found = []
    for root, turn, vectors, to_other in ((root_a, turn_a, left, shift), (root_b, turn_b, right.T, -shift)):
        rows = vectors if turn is None else turn @ vectors
        each = 2 * root @ to_other / len(root) + root.square().sum(1) / (len(root) - 1) - rows.square() @ values
        found.append(each - each.mean())
    return found[0], found[1]


def _turned(root: Tensor) -> tuple[Tensor | None, Tensor]:
    """Split a tall matrix into Q and R; any other is its own R."""
    return tuple(torch.linalg.qr(root)) if len(root) > root.shape[1] else (None, root)
