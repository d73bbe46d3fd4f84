"""Frechet Inception distance (Heusel et al. 2017, arXiv 1706.08500, section 3).

|m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)) for the means and covariances of two sets of features.
Shapes: n pictures, d features (2048). All of the distance is computed in float64; covariances divide by n-1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.base import Distinct, Metric, MetricValue, Pictures
from metrics.inception import FEATURES, FIDFeatures, InceptionFile
from util.errors import UserError

PROTOCOL = (
    "FID, pytorch-fid protocol: Inception-2015-12-05 pool3 features (float32, RGB, bilinear to 299, not antialiased) "
    "of the 8-bit generated and real pictures of the same cuts, covariances with n-1, exact trace term in float64"
)


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
    return torch.linalg.svdvals(_narrow(root_a) @ _narrow(root_b).T).sum()


def trace_sqrt_cholesky(root_a: Tensor, root_b: Tensor) -> Tensor | None:
    """Tr sqrt(S1 S2) as the sum of square roots of the eigenvalues of L^T S2 L, S1 = L L^T; None if S1 is singular."""
    lower, failed = torch.linalg.cholesky_ex(root_a.T @ root_a)
    if failed:
        return None
    half = root_b @ lower
    return torch.linalg.eigvalsh(half.T @ half).clamp(min=0).sqrt().sum()


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


class FID(Metric):
    """`fid` between all generated pictures and the distinct real ones of the same stream.

    `generated` and `real` hold the float32 features on the CPU, in the order of the pictures.
    """

    def __init__(self, net: FIDFeatures, source: InceptionFile, *, device: torch.device) -> None:
        super().__init__()
        self.net, self.source, self.device = net.to(device), source, device
        self.reset()

    def reset(self) -> None:
        self._distinct = Distinct()
        self._generated: list[Tensor] = []
        self._real: list[Tensor] = []

    def update(self, pictures: Pictures) -> None:
        fresh = self._distinct.new(pictures)
        both = torch.cat([pictures.fake.to(self.device), pictures.real[fresh].to(self.device)])
        features = self.net(both).cpu()
        self._generated.append(features[: len(pictures)])
        self._real.append(features[len(pictures) :])

    @property
    def generated(self) -> Tensor:
        """Features (n, 2048) of the generated pictures."""
        return torch.cat(self._generated) if self._generated else torch.empty(0, FEATURES)

    @property
    def real(self) -> Tensor:
        """Features (m, 2048) of the distinct real pictures."""
        return torch.cat(self._real) if self._real else torch.empty(0, FEATURES)

    def compute(self) -> dict[str, MetricValue]:
        generated, real = self.generated, self.real
        if min(len(generated), len(real)) < 2:
            self.notes = ["fid: left out, it needs at least two pictures (--num_images)"]
            return {}
        self.notes = []
        extra: dict[str, object] = {
            "num_generated": len(generated),
            "num_real": len(real),
            "weights": self.source.path.name,
            "weights_sha256": self.source.sha256,
        }
        if min(len(generated), len(real)) < FEATURES:
            extra["note"] = (
                f"fewer pictures than the {FEATURES} features: biased upwards, compare only with equal counts"
            )
        value = frechet_distance(generated, real)
        return {"fid": MetricValue(value, "distance", PROTOCOL, len(generated), extra)}
