"""One method of a peer, in a process of its own and with the peers' interpreter: acquisition.py.

    python acquisition_peers.py FOLDER PEER/METHOD COUNT THREADS

Each prepares what the peer works on from the same files, outside of the timed call. Needs numpy
and the peer; nothing of this package.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from importlib import metadata

import numpy as np
from acquisition_measure import BOUGHT, NOISE, Asked, Inputs, Prepare, answer, asked, measure

CONFIGURATIONS = 10_000
"""Of labels, in batchbald_redux: the number of its documentation. All of 8 rows with 3 classes."""

DRAWS = 25
"""Of each index, in baal's BatchBALD: 500 configurations at K = 20, near the 512 that ours draws
where it cannot have all. Its default, 500, makes arrays of 2.4 GB at 10,000 rows."""

SHARE = 1e-3
"""Of the noise that activeft adds itself in ITL; it scores the rest as part of the row: `itl`."""

Call = Callable[[], np.ndarray]


def redux() -> Prepare:
    import torch
    from batchbald_redux.batchbald import get_batchbald_batch

    def prepare(inputs: Inputs, what: Asked) -> Call:
        log_probs = torch.tensor(inputs.log_probs).permute(1, 0, 2).contiguous()

        def call() -> np.ndarray:
            torch.manual_seed(0)
            # float64, as in its documentation; float32 takes an eighth less of its time.
            found = get_batchbald_batch(
                log_probs, what.count, CONFIGURATIONS, dtype=torch.double, device="cpu"
            )
            return np.asarray(found.indices)

        return call

    return prepare


def activeft(name: str, mini_batches: bool) -> Prepare:
    import torch
    from activeft.acquisition_functions.itl import ITL
    from activeft.acquisition_functions.vtl import VTL

    class WithNoise(torch.nn.Linear):
        """The linear kernel of y = f + noise; a module because activeft asks for one."""

        def kernel(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
            cov = x1 @ x2.T
            if x1 is x2:
                cov.diagonal().add_(NOISE * (1 - SHARE))
            return cov

    def prepare(inputs: Inputs, what: Asked) -> Call:
        pool, target = torch.tensor(inputs.features), torch.tensor(inputs.target_features)
        # All rows in one covariance is exact, and what we compare with. Its default is to choose
        # within mini-batches of 1,000 and then among what was chosen: faster, and other rows.
        size = 1000 if mini_batches else max(len(pool), what.count + 1)
        # ITL is the information about a row's f there, about its label here; so its kernel is that
        # of labels. VTL's definition is the same, and it gets the features as its embeddings.
        itl = name == "itl"
        peer = (ITL if itl else VTL)(
            target=target,
            noise_std=(NOISE * (SHARE if itl else 1)) ** 0.5,
            mini_batch_size=size,
        )
        model = WithNoise(1, 1) if itl else None

        def call() -> np.ndarray:
            torch.manual_seed(0)
            with torch.no_grad():
                return peer.select(what.count, model, pool)[0].numpy()

        return call

    return prepare


def baal(name: str) -> Prepare:
    _name_torchvision_operators()
    from baal.active import heuristics

    def prepare(inputs: Inputs, what: Asked) -> Call:
        # Its layout is (N, C, K), which is that of its own predictions.
        probs, targets = (
            np.ascontiguousarray(np.exp(some).transpose(1, 2, 0))
            for some in (inputs.log_probs, inputs.target_log_probs)
        )

        def call() -> np.ndarray:
            if name == "bald":
                return heuristics.BALD()(probs)[: what.count].copy()
            if name == "epig":
                return heuristics.EPIG()(probs, targets)[: what.count].copy()
            import torch

            torch.manual_seed(0)
            # The first row comes before the steps that it counts. Ranks are by scores that are not
            # in the order of choice, as it says; rows not chosen have 0.
            peer = heuristics.BatchBALD(what.count - 1, num_draw=DRAWS)
            return peer(probs)[: what.count].copy()

        return call

    return prepare


def _name_torchvision_operators() -> None:
    """Names without operators for a torchvision that was built for another torch.

    baal imports it and uses none of them.
    """
    import torch

    with contextlib.suppress(ImportError):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            library = torch.library.Library("torchvision", "FRAGMENT")
            _alive.append(library)
            regions = [f"{name}{end}" for name in ("roi", "ps_roi") for end in ("_align", "_pool")]
            back = [f"_{name}_backward" for name in (*regions, "deform_conv2d")]
            for name in ("nms", "qnms", "qroi_align", "deform_conv2d", *regions, *back):
                library.define(f"{name}(Tensor a) -> Tensor")


_alive: list[object] = []


def skactiveml(name: str) -> Prepare:
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge, CoreSet, UncertaintySampling

    class Predictions(SkactivemlClassifier):
        """A classifier that is fitted already: the mean prediction of the rows it is asked about,
        which are all of them.
        """

        def __init__(self, probs: np.ndarray) -> None:
            super().__init__(classes=list(range(probs.shape[-1])))
            self.probs = probs

        def fit(self, *_: object) -> "Predictions":
            return self

        def predict_proba(self, *_: object) -> np.ndarray:
            return self.probs.mean(0)

    def prepare(inputs: Inputs, what: Asked) -> Call:
        X, y = inputs.features, np.full(len(inputs.features), np.nan)
        head = Predictions(np.exp(inputs.log_probs))

        def call() -> np.ndarray:
            options = {"X": X, "y": y, "batch_size": what.count}
            if name == "kcenter":
                return np.asarray(CoreSet(random_state=0).query(**options))
            options |= {"clf": head, "fit_clf": False}
            if name == "badge":
                return np.asarray(Badge(random_state=0).query(**options))
            return np.asarray(UncertaintySampling("entropy", random_state=0).query(**options))

        if name == "kcenter":
            y[:BOUGHT] = 0
        return call

    return prepare


def bmdal(name: str) -> Prepare:
    import torch
    from bmdal_reg.bmdal import selection
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features

    methods = {
        "lcmd": selection.LargestClusterMaxDistSelectionMethod,
        "kcenter": selection.MaxDistSelectionMethod,
        "maxdet": selection.MaxDetSelectionMethod,  # the kernel form, faster at few rows chosen
        "bait": selection.BaitFeatureSpaceSelectionMethod,  # forward only: its overselection is 1
    }

    def prepare(inputs: Inputs, what: Asked) -> Call:
        def of(part: np.ndarray) -> Features:
            map_ = IdentityFeatureMap(n_features=part.shape[1])
            return Features(map_, TensorFeatureData(torch.tensor(part))).precompute()

        bought = BOUGHT if name in {"lcmd", "kcenter"} else 0
        pool = of(inputs.features[bought:])
        # Rows of zeros are no rows; it cannot do with none.
        train = of(inputs.features[:bought] if bought else np.zeros_like(inputs.features[:1]))

        def call() -> np.ndarray:
            peer = methods[name](
                pool, train, sel_with_train=bought > 0, noise_sigma=NOISE**0.5, verbosity=0
            )
            return peer.select(what.count).numpy() + bought

        return call

    return prepare


PEERS: dict[str, tuple[str, Callable[[], Prepare]]] = {
    "batchbald_redux/batchbald": ("batchbald-redux", redux),
    "baal/batchbald": ("baal", lambda: baal("batchbald")),
    "baal/bald": ("baal", lambda: baal("bald")),
    "baal/epig": ("baal", lambda: baal("epig")),
    "activeft/itl": ("activeft", lambda: activeft("itl", False)),
    "activeft/vtl": ("activeft", lambda: activeft("vtl", False)),
    "activeft/itl, mini-batches": ("activeft", lambda: activeft("itl", True)),
    "activeft/vtl, mini-batches": ("activeft", lambda: activeft("vtl", True)),
    "scikit-activeml/entropy": ("scikit-activeml", lambda: skactiveml("entropy")),
    "scikit-activeml/badge": ("scikit-activeml", lambda: skactiveml("badge")),
    "scikit-activeml/kcenter": ("scikit-activeml", lambda: skactiveml("kcenter")),
    "bmdal-reg/kcenter": ("bmdal-reg", lambda: bmdal("kcenter")),
    "bmdal-reg/lcmd": ("bmdal-reg", lambda: bmdal("lcmd")),
    "bmdal-reg/maxdet": ("bmdal-reg", lambda: bmdal("maxdet")),
    "bmdal-reg/bait": ("bmdal-reg", lambda: bmdal("bait")),
}
"""Each peer's distribution and how to set a method of it up."""


def main() -> None:
    what = asked()
    warnings.simplefilter("ignore")
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars cost it time
    package, load = PEERS[what.name]
    try:
        prepare = load()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(what.threads)
        version = metadata.version(package)
    except ImportError as error:
        answer({"missing": f"{package}: {error}"})
        return
    try:
        found = measure(prepare, what, compiles=False)
    except Exception as error:  # a peer that fails is a figure too
        answer({"failed": f"{type(error).__name__}: {error}"[:200]})
        return
    answer(found | {"version": f"{package} {version}"})


if __name__ == "__main__":
    main()
