"""The model that chooses in the rounds of svpp, asvp and auto: a proxy, and what it reads."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from enn_finetune import costs, train
from enn_finetune.config import Config
from enn_finetune.costs import Ledger, Work
from enn_finetune.evaluating import predict
from enn_finetune.policies import deciding, fits
from enn_finetune.policies.encoders import Features, Sides, pretrained, refreshed
from enn_finetune.policies.fits import Proxy
from enn_finetune.policies.standing import Refresh, Standing
from enn_finetune.problem import Problem

Scores = dict[str, dict[str, float]]


class Fitted(NamedTuple):
    """The fit that a run would have ended with, what it took, and what it scores."""

    parts: train.Parts | None  # None where scores and work are remembered of another run
    work: Work
    scores: Scores
    config: Config  # it was fitted under


@dataclass
class Shared:
    """What runs over one pool need not compute twice; each is charged as if it had."""

    features: dict[str, tuple[Features, Work]] = field(default_factory=dict)
    fits: MutableMapping[str, tuple[Scores, Work]] = field(default_factory=dict)


class Selector:
    """A head on features of the pool, which are computed anew where the policy asks for it."""

    def __init__(
        self, both: Sides, config: Config, standing: Standing, shared: Shared, *, charged: bool
    ) -> None:
        """Compute the features in use; `charged` is False where they were paid for before."""
        self.both, self.config, self.standing = both, config, standing
        self.oracle = both.selector.oracle
        features = self._pretrained(shared, charged=charged)
        self.old = Proxy(both.selector, features, config)  # on features of the pretrained encoder
        self.proxy = self.old  # on those in use
        if standing.refreshes:  # made again as it was
            last = standing.refreshes[-1]
            at_the_time = fits.owning(both.selector, self.oracle.bought[: last.labels])
            tuned = fits.tuned(both.selecting, last.mode, probe=last.probe)
            self._use(fits.trained(at_the_time, tuned, last.round))

    @property
    def ledger(self) -> Ledger:
        """What each part took so far."""
        return self.standing.ledger

    def choosing(self, fitted: Fitted | None) -> train.Parts:
        """The head that chooses in this round, its features anew where the policy asks for it."""
        if self._wants_new():
            self._refresh(fitted)
        with self.ledger.charging("scoring"):
            return self.proxy.fit(self.standing.round)

    def _pretrained(self, shared: Shared, *, charged: bool) -> Features:
        where = (self.both.selecting.backbone, self.config.proxy.layers)
        key = f"{self.both.selector.fingerprint} {where} {len(self.both.selector.pool)}"
        if key not in shared.features:
            with self.ledger.measured() as taken:
                features = pretrained(self.both)
            shared.features[key] = (features, taken())
        features, work = shared.features[key]
        if charged:
            self.ledger.add("encoding", work)
            self.standing.encoding_flops = work.flops
        return features

    def _use(self, parts: train.Parts) -> None:
        """Go on with features of a fine-tuned selector."""
        features = refreshed(self.both, fits.encoder_of(parts))
        self.proxy = Proxy(self.both.selector, features, self.config)

    @property
    def probe(self) -> bool:
        """True where a fit made now is LP-FT."""
        return self.config.policy in ("asvp", "auto") and not self.standing.fired

    def read(self) -> None:
        """Take the indicator's reading of the features in use, where anything depends on it."""
        standing, labels = self.standing, len(self.oracle.bought)
        wanted = self.config.policy in ("asvp", "auto")
        wanted &= not standing.fired or (self.config.policy == "asvp" and self._room)
        if not wanted or (standing.readings and standing.readings[-1].labels == labels):
            return
        with self.ledger.charging("scoring"):
            standing.readings.append(deciding.Reading(labels, *self.proxy.reading()))
        standing.fired |= deciding.stale(standing.readings, self.config)

    @property
    def _room(self) -> bool:
        return len(self.standing.refreshes) < self.config.proxy.refreshes

    def _refresh(self, fitted: Fitted | None) -> None:
        """Fine-tune the selector on what is bought, and compute the pool's features anew."""
        standing, number = self.standing, self.standing.round
        config = fits.tuned(self.both.selecting, standing.mode, probe=self.probe)
        parts = None
        own = not self.config.proxy.pseudo  # else the curve's fit read labels that it made up
        if fitted is not None and fitted.config == config and self.both.same and own:
            parts, work = fitted.parts, fitted.work  # it drew the curve, and is of use now
            self.ledger.add("evaluation", Work(-work.flops, -work.seconds))
        if parts is None:
            with self.ledger.measured() as taken:
                parts = fits.trained(self.both.selector, config, number)
            work = taken()
        self.ledger.add("training", work)
        labels = len(self.oracle.bought)
        standing.refreshes.append(Refresh(number, labels, standing.mode, self.probe))
        with self.ledger.charging("encoding"):
            self._use(parts)
        standing.readings = []

    def _wants_new(self) -> bool:
        """True where the policy asks for new features before it chooses."""
        standing, config = self.standing, self.config
        if config.policy == "asvp":
            return self._room and deciding.stale(standing.readings, config)
        if config.policy != "auto":
            return False
        self._learn()
        labels, fit = len(self.oracle.bought), self._fit_flops()
        price = deciding.refresh_price(fit, standing.encoding_flops, config.prices)
        if price >= deciding.worth(labels, standing.since, config, standing.gain):
            return False
        self._try_modes(fit)
        return True

    def _fit_flops(self) -> float:
        """Operations of a fit to what is bought now: as the last one took, or by estimate."""
        standing, config = self.standing, self.config
        tuned = fits.tuned(config, standing.mode, probe=self.probe)
        steps = fits.steps_of(tuned, len(self.oracle.bought))
        if standing.step_flops and self.both.same:
            return standing.step_flops * steps
        rows = len(self.both.selector.pool)
        return deciding.fit_estimate(standing.encoding_flops, rows, config.train.batch, steps)

    def _learn(self) -> None:
        """auto: how old and new features predicted the rows of the round that is over."""
        standing, before = self.standing, self._before
        if not standing.refreshes or before == 0:
            return
        bought = self.oracle.bought
        with self.ledger.charging("scoring"):
            losses = [
                self._losses(proxy.fit(standing.round, bought[:before]), proxy.problem)
                for proxy in (self.old, self.proxy)
            ]
        standing.gain = deciding.learned(standing.gain, *losses)

    def _try_modes(self, fit: float) -> None:
        """auto: once, which of the tuning modes predicts the last round's rows, and how cheaply."""
        standing, config, before = self.standing, self.config, self._before
        modes = tuple(dict.fromkeys((config.backbone.tune, *config.proxy.modes)))
        price = costs.money(0, costs.hours(fit * len(modes), config.prices), config.prices)
        afford = deciding.TRIAL_SHARE * config.prices.label * len(self.oracle.bought)
        if standing.tried or len(modes) == 1 or before == 0 or price > afford:
            return
        earlier = fits.owning(self.both.selector, self.oracle.bought[:before])
        losses, operations = [], []
        for mode in modes:
            tuned = fits.tuned(self.both.selecting, mode, probe=self.probe)
            with self.ledger.measured() as taken:
                parts = fits.trained(earlier, tuned, standing.round)
                losses.append(self._losses(parts, self.both.selector))
            operations.append(taken().flops)
            self.ledger.add("training", taken())
        standing.mode, standing.tried = modes[deciding.cheapest(losses, operations)], True

    @property
    def _before(self) -> int:
        """Labels before the round that is over; 0 in the first."""
        counts = self.config.budget.rounds
        return counts[self.standing.round - 1] if self.standing.round else 0

    def _losses(self, parts: train.Parts, problem: Problem) -> np.ndarray:
        """Log-loss (n,) of the rows of the round that is over."""
        rows = self.oracle.bought[self._before :]
        log_probs, _ = predict(parts, problem.pool, rows, self.config)
        return -np.sum(self.oracle.buy(rows) * log_probs, axis=1)
