"""Greedy batches by brute force: float64, the joint covariance of the whole pool, plain algebra."""

import numpy as np

from enn_finetune.acquisition.kernels import Factors

SAME = 1e-5


class Joint:
    """The joint Gaussian of f and y of N rows, f and f + blur of M targets: 2 (N + M) numbers."""

    def __init__(self, rows: Factors, targets: Factors, blur: float = 1.0):
        phi = np.concatenate([rows.factors, targets.factors]).astype(np.float64)
        self.n, self.m = len(rows.factors), len(targets.factors)
        self.factors = phi[: self.n]
        f = phi @ phi.T
        distances = np.diag(f)[:, None] + np.diag(f)[None] - 2 * f
        alike = distances <= SAME * (np.diag(f)[:, None] + np.diag(f)[None])
        noise = np.concatenate([rows.noise, blur * np.asarray(targets.noise)]).astype(np.float64)
        self.alike = alike[: self.n, : self.n]
        self.noise = noise[: self.n]
        self.cov = np.block([[f, f], [f, f + np.diag(noise)]])
        self.prior = np.diag(f).copy()
        self.known = np.zeros(self.n, bool)
        self.f, self.y = np.arange(self.n), np.arange(self.n) + self.n + self.m
        self.f_a, self.y_a = (np.arange(self.m) + start + self.n for start in (0, self.n + self.m))

    def given(self, observed: np.ndarray) -> np.ndarray:
        """The covariance of everything given some of it."""
        inner = np.linalg.pinv(self.cov[np.ix_(observed, observed)], rcond=1e-12, hermitian=True)
        return self.cov - self.cov[:, observed] @ inner @ self.cov[observed]

    def buy(self, row: int) -> None:
        """Condition on the label of a row, once: rows alike have one label."""
        if not self.known[row]:
            self.cov = self.given(self.y[[row]])
            # The row's own label has no variance now; to others it is as if measured anew.
            f, y = self.f[row], self.y[row]
            self.cov[y] = self.cov[f]
            self.cov[:, y] = self.cov[:, f]
            self.cov[y, y] = self.cov[f, f] + self.noise[row]
        self.known |= self.alike[row]

    # ---- scores (N,) of the paper's criteria

    def logdet(self) -> np.ndarray:
        cov = np.diag(self.cov)
        return np.log(cov[self.y] / self.noise) / 2

    def itl(self) -> np.ndarray:
        return np.log(np.diag(self.cov)[self.y] / np.diag(self.given(self.y_a))[self.y]) / 2

    def vtl(self) -> np.ndarray:
        now = np.trace(self.cov[np.ix_(self.f_a, self.f_a)])
        after = [
            np.trace(self.given(self.y[[row]])[np.ix_(self.f_a, self.f_a)]) for row in range(self.n)
        ]
        return now - np.array(after)

    def ctl(self) -> np.ndarray:
        variance = np.diag(self.cov)[: self.n + self.m]
        sd = np.sqrt(np.where(variance > 1e-6 * self.prior, variance, np.inf))
        return (self.cov[np.ix_(self.f, self.f_a)] / (sd[self.f][:, None] * sd[self.f_a])).sum(1)


def check_batch(joint: Joint, kind: str, rows: np.ndarray, free: np.ndarray, slack=1e-3) -> None:
    """Each row is a free one of highest score given those before it, up to rounding."""
    free = free.copy()
    for place, row in enumerate(rows):
        assert free[row], (place, row)
        scores = getattr(joint, kind)()
        may = free & ~joint.known if (free & ~joint.known).any() else free
        assert may[row], f"{kind}: row {row}, place {place} is like one chosen before it"
        if not joint.known[row]:
            found, best = scores[row], scores[may].max()
            assert found >= best - slack * abs(best) - 1e-5, (kind, place, row, found, best)
        joint.buy(row)
        free[row] = False
