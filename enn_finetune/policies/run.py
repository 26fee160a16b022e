"""The rounds of a policy: one way through them for all four."""

import hashlib
from typing import Any, cast

import numpy as np

from enn_finetune import pool, train
from enn_finetune.config import Config
from enn_finetune.costs import Ledger, Work
from enn_finetune.errors import InputError
from enn_finetune.models.classifier import Classifier
from enn_finetune.policies import fits
from enn_finetune.policies.dropping import dropped
from enn_finetune.policies.encoders import sides
from enn_finetune.policies.replaying import listed
from enn_finetune.policies.selector import Drawn, Fitted, Selector, Shared
from enn_finetune.policies.standing import Standing
from enn_finetune.problem import Problem
from enn_finetune.session import Session


def run(
    problem: Problem,
    config: Config,
    session: Session,
    *,
    shared: Shared | None = None,
    given: np.ndarray | None = None,
) -> tuple[Classifier, int]:
    """Buy and fit until the labels are spent: the classifier trained in the end, and the rounds.

    Args:
      problem: the successor's, its pool as tokens.
      config: with `policy`, `proxy` and `prices`.
      session: where records and checkpoints go.
      shared: of runs over the same pool, if there are others.
      given: pool rows (n,) to be bought in this order, whatever the rule: a list that was bought
        before, replayed on this successor. None takes the list that `proxy.replay` names.

    Raises:
      RunStoppedError: a signal came; the rounds that are complete are saved.
      InputError: weights of the selector, or a list to be replayed, that cannot be used.
    """
    rows = listed(problem, config) if given is None else given
    first = [] if given is None else given[: config.budget.labels].tolist()
    if given is not None and len(set(first)) < config.budget.labels:
        raise InputError(
            f"given: found {len(set(first))} different rows among the first "
            f"{config.budget.labels}, as many as budget.labels buys; give each once"
        )
    return Course(problem, config, session, shared or Shared(), rows).run()


class Course:
    """One run. What it knows between rounds is its `Standing`; all else is made again from that."""

    def __init__(
        self,
        problem: Problem,
        config: Config,
        session: Session,
        shared: Shared,
        given: np.ndarray | None,
    ) -> None:
        self.both = sides(problem, config, session.display)
        self.config, self.session, self.shared, self.given = config, session, shared, given
        self.oracle = problem.oracle
        saved = session.restore(None)
        if saved is None:
            self.standing = Standing.begin(config)
            first = pool.first_rows(len(problem.pool), config) if given is None else given
            self.oracle.buy(first[: config.budget.start])
        else:
            state = cast(dict[str, Any], saved[1])
            self.standing = Standing.restore(state)
            self.oracle.restore(state["oracle"])
        chosen = given is None and config.acquisition.rule != "random"
        self.selector: Selector | None = None
        if chosen and config.policy != "standard":
            self.selector = Selector(
                self.both,
                config,
                self.standing,
                self.ledger,
                shared,
                session.display,
                charged=saved is None,
            )
        self.by_itself = chosen and self.selector is None and self.both.same
        """The model that is trained chooses: each of its fits is charged."""

    @property
    def ledger(self) -> Ledger:
        """What each part took so far."""
        return self.session.ledger

    def run(self) -> tuple[Classifier, int]:
        """See the module's `run`."""
        session, standing, oracle = self.session, self.standing, self.oracle
        session.display.begin("buying labels", self.config.budget.labels)
        with session.interruptible():
            while True:
                session.stop_if_asked(None, standing.state(oracle.state()))
                labels, last = len(oracle.bought), oracle.remaining == 0
                session.display.advance(labels)
                if last and session.evaluated(standing.round, labels):  # a finished run, resumed
                    return train.merge(self._trained(self._training)), standing.round
                if self.selector is not None:
                    self.selector.read()
                due = standing.round == 0 or session.due(labels) or last
                fitted = self._fit(keep=last, due=due) if due or self.by_itself else None
                if fitted is not None and due:
                    self._record(fitted)
                if last:
                    break
                oracle.buy(self._choose(fitted))
                standing.round += 1
                session.save(None, standing.state(oracle.state()))
        session.save(None, standing.state(oracle.state()))
        if fitted is None or fitted.parts is None:
            raise RuntimeError("a run ends with the fit of its last round")
        return train.merge(fitted.parts), standing.round

    @property
    def _training(self) -> Config:
        """How the successor is trained where the run ends now."""
        mode = self.standing.mode if self.both.same else self.config.backbone.tune
        probe = self.selector is not None and self.selector.probe
        return fits.tuned(self.config, mode, probe=probe)

    def _fit(self, *, keep: bool, due: bool) -> Fitted:
        """The fit that the run would end with now, and where `due` its scores.

        `keep` asks for the fit itself, not only for what is remembered of it.
        """
        config = self._training
        name = self._name(config)
        if not due:
            with self.ledger.measured() as taken:
                parts: train.Parts | None = self._trained(config)
            drawn = Drawn({}, taken(), Work())
        elif name in self.shared.fits and not (keep or self.by_itself):
            parts, drawn = None, self.shared.fits[name]
        else:
            parts, drawn = self._drawn(config)
            self.shared.fits[name] = drawn
        self.ledger.add("training" if self.by_itself else "evaluation", drawn.work)
        self.ledger.add("evaluation", drawn.scoring)
        each = fits.steps_of(config, len(self.oracle.bought)) * (2 if config.proxy.pseudo else 1)
        self.standing.step_flops = drawn.work.flops / each
        return Fitted(parts, drawn.work, drawn.scores, config)

    def _drawn(self, config: Config) -> tuple[train.Parts, Drawn]:
        """A fit of the successor, and a point of the curve."""
        evaluator = self.shared.evaluator(self.both.successor, self.config)
        with self.ledger.measured() as fitting:
            parts = self._trained(config)
        with self.ledger.measured() as scoring:
            scores = evaluator(parts)
        return parts, Drawn(scores, fitting(), scoring())

    def _trained(self, config: Config) -> train.Parts:
        """The successor on the labels bought, and on its own for more rows where asked for."""
        problem, number = self.both.successor, self.standing.round
        parts = fits.trained(problem, config, number)
        if config.proxy.pseudo:
            parts = fits.with_pseudo_labels(problem, config, parts, number)
        return parts

    def _name(self, config: Config) -> str:
        """What a fit depends on."""
        problem = self.both.successor
        recipe = (config.backbone, config.train, config.head, config.proxy.pseudo)
        how = (config.seed, self.standing.round, config.evaluation, len(problem.pool))
        text = f"{problem.fingerprint} {recipe} {how} {self.oracle.bought.tolist()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _record(self, fitted: Fitted) -> None:
        """What a run costs that ends here, beside what it scores."""
        self.session.note(
            self.both.successor,
            fitted.scores,
            self.standing.round,
            len(self.oracle.bought),
            last=None if self.by_itself else fitted.work,  # else it is among the training already
            refreshed=[one.labels for one in self.standing.refreshes],
        )

    def _choose(self, fitted: Fitted | None) -> np.ndarray:
        """The rows (n,) of the next round."""
        number, problem = self.standing.round, self.both.selector
        if self.given is not None:
            bought = len(self.oracle.bought)
            return self.given[bought : self.config.budget.after(bought)]
        if self.selector is not None:
            parts = self.selector.choosing(fitted)
            problem = self.selector.proxy.problem
        elif self.by_itself and fitted is not None and fitted.parts is not None:
            parts = fitted.parts
        elif self.config.acquisition.rule == "random":
            parts = cast(train.Parts, None)  # nothing is asked
        else:  # another encoder, fine-tuned in every round
            with self.ledger.charging("training"):
                parts = fits.trained(problem, self.both.selecting, number)
            if self.config.proxy.head == "mc_dropout":
                parts = dropped(parts)
        with self.ledger.charging("scoring"):
            rows, _ = pool.choose(problem, self.config, parts, number, self.session.display, None)
        return rows
