"""The model that chooses in the rounds of svpp, asvp and auto: a proxy, and what it reads."""

from collections.abc import MutableMapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from enn_finetune import train
from enn_finetune.config import Config
from enn_finetune.costs import Ledger, Work
from enn_finetune.evaluating import Evaluator, predict
from enn_finetune.joint import Groups
from enn_finetune.policies import deciding, fits
from enn_finetune.policies.deciding import Account, Way
from enn_finetune.policies.encoders import Features, Sides, pretrained, refreshed
from enn_finetune.policies.fits import Proxy
from enn_finetune.policies.standing import Refresh, Standing
from enn_finetune.problem import Problem
from enn_finetune.progress import Display

Scores = dict[str, dict[str, float]]


class Fitted(NamedTuple):
    """The fit that a run would have ended with, what it took, and what it scores."""

    parts: train.Parts | None  # None where scores and work are remembered of another run
    work: Work
    scores: Scores
    config: Config  # it was fitted under


class Drawn(NamedTuple):
    """What is remembered of a fit that draws a curve."""

    scores: Scores
    work: Work  # of the fit
    scoring: Work  # of the evaluation splits


@dataclass
class Shared:
    """What runs over one pool need not compute twice; each is charged as if it had."""

    features: dict[str, tuple[Features, Work]] = field(default_factory=dict)
    fits: MutableMapping[str, Drawn] = field(default_factory=dict)
    groups: dict[str, dict[str, Groups]] = field(default_factory=dict)

    def evaluator(self, problem: Problem, config: Config) -> Evaluator:
        """What scores the successor; which rows it predicts together is found once."""
        evaluator = Evaluator(problem, config)
        key = f"{problem.fingerprint} {config.backbone}"
        if key in self.groups:
            evaluator.groups = self.groups[key]
        self.groups[key] = evaluator.groups
        return evaluator


class Selector:
    """A head on features of the pool, which are computed anew where the policy asks for it."""

    def __init__(
        self,
        both: Sides,
        config: Config,
        standing: Standing,
        ledger: Ledger,
        shared: Shared,
        display: Display,
        *,
        charged: bool,
    ) -> None:
        """Compute the features in use; `charged` is False where they were paid for before."""
        self.both, self.config, self.standing, self.ledger = both, config, standing, ledger
        self.oracle = both.selector.oracle
        self._features = self._pretrained(shared, display, charged=charged)
        with ledger.charging("encoding") if charged else nullcontext():
            self.old = Proxy(both.selector, self._features, config)  # of the pretrained encoder
        self.proxy = self.old  # in use
        self._began = 0.0
        if standing.in_use is not None:  # made again as it was
            self.proxy = self._proxy(self._made(standing.in_use))

    def choosing(self, fitted: Fitted | None) -> train.Parts:
        """The head that chooses in this round, its features anew where the policy asks for it."""
        policy, standing = self.config.policy, self.standing
        if policy == "asvp" and self._room and deciding.stale(standing.readings, self.config):
            self._refresh(fitted)
        if policy == "auto":
            self._began = self.ledger.charged.flops
            self._improve()
            standing.explored = self._account.explored
        with self.ledger.charging("scoring"):
            return self.proxy.fit(standing.round)

    def _pretrained(self, shared: Shared, display: Display, *, charged: bool) -> Features:
        where = (self.both.selecting.backbone, self.config.proxy.layers)
        key = f"{self.both.selector.fingerprint} {where} {len(self.both.selector.pool)}"
        if key not in shared.features:
            shared.features[key] = pretrained(self.both, display)
        features, work = shared.features[key]
        if charged:
            self.ledger.add("encoding", work)
            self.standing.encoding_flops = work.flops
        return features

    def _proxy(self, parts: train.Parts) -> Proxy:
        """The proxy that predicts together with a selector fine-tuned."""
        head = train.merge(parts).head
        beside = refreshed(self.both, fits.encoder_of(parts), head)
        return Proxy(
            self.both.selector,
            self._features,
            self.config,
            beside=beside,
            shapes=self.old.shapes,
        )

    def _made(self, refresh: Refresh) -> train.Parts:
        """The selector fine-tuned for a refresh, or as it was."""
        rows = self.oracle.bought[refresh.apart : refresh.labels]
        tuned = fits.tuned(self.both.selecting, refresh.mode, probe=refresh.probe)
        return fits.trained(fits.owning(self.both.selector, rows), tuned, refresh.round)

    @property
    def probe(self) -> bool:
        """True where a fit made now is LP-FT."""
        standing = self.standing
        wanted = self.config.policy == "asvp" or standing.probing
        return wanted and not standing.fired

    def read(self) -> None:
        """Take the indicator's reading, where anything depends on it.

        asvp reads the features in use, and begins anew with new ones. auto reads those of the
        pretrained encoder, of which it only asks when LP-FT ends.
        """
        standing, labels = self.standing, len(self.oracle.bought)
        wanted = self.probe or (self.config.policy == "asvp" and self._room)
        if not wanted or (standing.readings and standing.readings[-1].labels == labels):
            return
        proxy = self.proxy if self.config.policy == "asvp" else self.old
        with self.ledger.charging("scoring"):
            standing.readings.append(deciding.Reading(labels, *proxy.reading()))
        standing.fired |= deciding.stale(standing.readings, self.config)

    @property
    def _room(self) -> bool:
        return len(self.standing.refreshes) < self.config.proxy.refreshes

    def _refresh(self, fitted: Fitted | None) -> None:
        """asvp: fine-tune the selector on what is bought, and compute the pool's features anew."""
        standing, labels = self.standing, len(self.oracle.bought)
        refresh = Refresh(standing.round, labels, standing.mode, self.probe)
        config = fits.tuned(self.both.selecting, standing.mode, probe=self.probe)
        parts = None
        own = not self.config.proxy.pseudo  # else the curve's fit read labels that it made up
        if fitted is not None and fitted.config == config and self.both.same and own:
            parts, work = fitted.parts, fitted.work  # it drew the curve, and is of use now
            self.ledger.add("evaluation", Work(-work.flops, -work.seconds))
        if parts is None:
            with self.ledger.measured() as taken:
                parts = self._made(refresh)
            work = taken()
        self.ledger.add("training", work)
        with self.ledger.charging("encoding"):
            self.proxy = self._proxy(parts)
        standing.refreshes.append(refresh)
        standing.readings = []

    @property
    def _account(self) -> Account:
        standing = self.standing
        labels, spent = len(self.oracle.bought), self.ledger.charged.flops
        explored = standing.explored + spent - self._began  # what this round took is among it
        return Account(labels, standing.since, spent, explored, standing.proven)

    def _improve(self) -> None:
        """auto: compare ways of training, and compute features anew, where each seems worth it."""
        standing, parts = self.standing, None
        if not deciding.may_try(self._account, self.config):
            return
        if not standing.tried:
            parts = self._try_ways()
        fit = self._fit_flops(Way(standing.mode, self.probe)) if parts is None else 0.0
        price = standing.encoding_flops + fit
        if not deciding.refreshes(self._account, price, self.config):
            return
        refresh = self._refresh_of(Way(standing.mode, self.probe))
        if parts is None:
            with self.ledger.charging("training"):
                parts = self._made(refresh)
        self._compare(refresh, parts)

    def _refresh_of(self, way: Way) -> Refresh:
        labels, kept = len(self.oracle.bought), deciding.apart(self.config)
        return Refresh(self.standing.round, labels, way.mode, way.probe, kept)

    def _compare(self, refresh: Refresh, parts: train.Parts) -> None:
        """auto: compute new features, and go on with them if they predict better."""
        standing = self.standing
        with self.ledger.charging("encoding"):
            new = self._proxy(parts)
        rows = self.oracle.bought[refresh.apart :]
        with self.ledger.charging("scoring"):
            fresh, used, pretrained = (
                self._losses(proxy.fit(standing.round, rows), proxy.problem, refresh.apart)
                for proxy in (new, self.proxy, self.old)
            )
        better = bool(fresh.mean() < used.mean())
        if better:
            self.proxy, standing.proven = new, deciding.proven(pretrained, fresh)
        standing.refreshes.append(refresh._replace(used=better))

    def _fit_flops(self, way: Way) -> float:
        """Operations of a fit to what is bought now: as the last one took, or by estimate.

        At most so many, where it is another mode's than that of the fits so far.
        """
        standing, config = self.standing, self.config
        tuned = fits.tuned(config, way.mode, probe=way.probe)
        steps = fits.steps_of(tuned, len(self.oracle.bought))
        if standing.step_flops and self.both.same:
            dearer = 1.0 if way.mode == standing.mode else deciding.dearer(standing.mode)
            return standing.step_flops * steps * dearer
        rows = len(self.both.selector.pool)
        return deciding.fit_estimate(standing.encoding_flops, rows, config.train.batch, steps)

    def _try_ways(self) -> train.Parts | None:
        """auto: the best way of training, as its fit; None where the prices forbid to try them."""
        standing, config = self.standing, self.config
        modes = dict.fromkeys((config.backbone.tune, *config.proxy.modes))
        ways = [Way(config.backbone.tune, False), Way(config.backbone.tune, True)]
        ways += [Way(mode, False) for mode in modes if mode != config.backbone.tune]
        priced = [self._fit_flops(way) for way in ways]
        if not deciding.affordable(self._account, sum(priced), config):
            return None
        made, losses = [], []
        for way in ways:
            with self.ledger.measured() as taken:
                made.append(self._made(self._refresh_of(way)))
            self.ledger.add("training", taken())
            with self.ledger.charging("scoring"):
                kept = deciding.apart(config)
                losses.append(self._losses(made[-1], self.both.selector, kept))
        best = deciding.chosen(losses)
        standing.mode, standing.probing, standing.tried = *ways[best], True
        return made[best]

    def _losses(self, parts: train.Parts, problem: Problem, count: int) -> np.ndarray:
        """Log-loss (count,) of the first rows bought, which were drawn at random."""
        rows = self.oracle.bought[:count]
        log_probs, _ = predict(parts, problem.pool, rows, self.config)
        return -np.sum(self.oracle.buy(rows) * log_probs, axis=1)
