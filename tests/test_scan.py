"""Pools read block by block: what is chosen is what would be chosen of all rows in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scan_made
from scan_made import CLASSES, INDICES, WIDTH, Tiny

from enn_finetune import scan, sharding
from enn_finetune.acquisition import pointwise, stochastic
from enn_finetune.acquisition.choose import BATCH_RULES, NAMES, choose
from enn_finetune.acquisition.halves import batch_rule
from enn_finetune.acquisition.rows import BLOCK
from enn_finetune.errors import InputError
from enn_finetune.models.linear_epinet import LinearEpinet, blank_fit
from enn_finetune.predicting import predictor
from enn_finetune.scan import passing
from enn_finetune.types import Shown, Targets

KEY = jax.random.key(11)
ONE = sharding.rows_mesh(jax.devices()[:1])
ALL = sharding.rows_mesh()
KINDS = ["random", "entropy", "power_bald", "softrank_margin", "softmax_epig", "badge", "logdet"]
KINDS += [pytest.param(r, marks=pytest.mark.slow) for r in sorted(BATCH_RULES.keys() - {*KINDS})]
"""One rule of each kind, and in the slow run all that choose rows together."""
LATER = sorted(BATCH_RULES.keys() - {"badge", "softrank_epig"})

picked = jax.jit(choose, static_argnums=(0, 2))


def pick(features, rule, free, count=9, *, mesh=ONE, head=None, **options):
    return scan.choose_from(
        head or Tiny(), features, rule, free, count, KEY, indices=INDICES, mesh=mesh, **options
    )


def shown(head, features, free, targets=None):
    """What `choose` is shown, all of it in memory."""
    predict = predictor(head, KEY, INDICES)
    rows = jnp.asarray(features, jnp.float32)
    about = None if targets is None else Targets(predict(targets), jnp.asarray(targets))
    return Shown(predict(rows), rows, jnp.asarray(free), about)


@pytest.mark.parametrize("rule", KINDS)
def test_rows_chosen_on_all_devices_are_those_of_a_pool_in_memory(rule):
    features, free = scan_made.pool(BLOCK + 500)
    expected = picked(rule, shown(Tiny(), features, free), 9, jax.random.fold_in(KEY, 2))
    found = pick(features, rule, free, mesh=ALL)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "rule", ["badge", "softrank_epig", *(pytest.param(r, marks=pytest.mark.slow) for r in LATER)]
)
def test_rows_chosen_for_targets_are_those_of_a_pool_in_memory(rule):
    features, free = scan_made.pool(BLOCK + 500)
    targets = features[40:52] + np.float32(0.1)
    expected = picked(rule, shown(Tiny(), features, free, targets), 9, jax.random.fold_in(KEY, 2))
    for mesh in (ONE, ALL):
        found = pick(features, rule, free, targets=targets, mesh=mesh)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rule", sorted(NAMES))
def test_every_rule_has_two_halves(rule):
    halves = batch_rule(rule)
    assert batch_rule(rule) is halves  # or every round would be compiled anew
    sizes = jax.eval_shape(halves.read, jnp.zeros((INDICES, 7, CLASSES)), jnp.zeros((7, WIDTH)))
    assert all(leaf.shape[0] == 7 for leaf in jax.tree.leaves(sizes))


def test_a_linear_epinet_is_read_through_the_rows_it_makes():
    features, free = scan_made.pool(300)
    draw = np.random.default_rng(1).normal
    fit = blank_fit(WIDTH, 2)
    fit = jax.tree.map(lambda leaf: leaf + draw(size=leaf.shape).astype(leaf.dtype), fit)
    head = LinearEpinet(fit)
    predict, rows = predictor(head, KEY, INDICES), head.rows(jnp.asarray(features))
    seen = Shown(predict(rows), rows, jnp.asarray(free))
    expected = picked("badge", seen, 9, jax.random.fold_in(KEY, 2))
    np.testing.assert_array_equal(pick(features, "badge", free, head=head), expected)
    plain = pick(features, "entropy", free, head=head.plain())
    assert len(set(plain)) == 9


@pytest.mark.parametrize("rule", ["bald", "power_entropy"])
def test_scores_are_those_of_the_rule(rule):
    features, free = scan_made.pool(BLOCK + 500)
    found = scan.score_all(Tiny(), features, rule, KEY, indices=INDICES, mesh=ALL)
    lone = stochastic.RULES[rule].score if rule in stochastic.RULES else pointwise.RULES[rule]
    expected = lone(shown(Tiny(), features, free).log_probs, KEY)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    again = scan.score_all(Tiny(), features, rule, KEY, indices=INDICES, mesh=ONE)
    np.testing.assert_array_equal(found, again)


# ---- where features lie


@pytest.fixture
def mapped(tmp_path):
    features, free = scan_made.pool(BLOCK + 500)
    np.save(tmp_path / "features.npy", features)
    return tmp_path / "features.npy", features, free


def test_features_may_lie_in_files_and_in_parts(mapped):
    path, features, free = mapped
    expected = pick(features, "bald", free)
    file = np.load(path, mmap_mode="r")
    parts = [file[:100], features[100:101], features[101:101], file[101:]]
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"header" * 4 + features.tobytes())
    for source in (
        file,
        file[:],
        parts,
        np.memmap(raw, np.float32, "r", 24, features.shape),
        np.asfortranarray(features),
    ):
        np.testing.assert_array_equal(pick(source, "bald", free), expected)


def test_half_precision_is_read_as_it_is(mapped):
    path, features, free = mapped
    np.save(path, features.astype(np.float16))
    found = pick(np.load(path, mmap_mode="r"), "bald", free)
    expected = pick(features.astype(np.float16).astype(np.float32), "bald", free)
    np.testing.assert_array_equal(found, expected)


def test_a_file_that_was_cut_off_is_noticed(mapped):
    path, _, free = mapped
    file = np.load(path, mmap_mode="r")
    size = path.stat().st_size
    with path.open("r+b") as writing:
        writing.truncate(size - 1000)
    with pytest.raises(InputError, match=f"found {size - 1000:,} bytes, expected {size:,}"):
        pick(file, "bald", free)


@pytest.mark.parametrize("row", [0, 17, BLOCK, BLOCK + 499])
@pytest.mark.parametrize("mesh", [ONE, ALL], ids=["one", "all"])
def test_the_first_row_that_is_not_finite_is_named(row, mesh):
    features, free = scan_made.pool(BLOCK + 500)
    features[row, 2] = np.nan
    with pytest.raises(InputError, match=rf"row {row} \(counted from 0\).*not finite"):
        pick(features, "bald", free, mesh=mesh)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "found no rows"),
        (np.zeros((0, WIDTH), np.float32), "found no rows"),
        (
            np.zeros((9, WIDTH + 1), np.float32),
            f"width {WIDTH + 1}, but .* fitted to width {WIDTH}",
        ),
        (np.zeros((9, WIDTH)), r"found float64 \(9, 6\), expected float16 or float32"),
        (np.zeros((9, 2, 3), np.float32), r"found float32 \(9, 2, 3\)"),
        (
            [np.zeros((8, WIDTH), np.float32), np.zeros((1, 5), np.float32)],
            "part 2 of 2: .* width 5",
        ),
        (
            [np.zeros((8, WIDTH), np.float32), np.zeros((1, WIDTH), np.float16)],
            "part 2 of 2: found float16",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused(features, message):
    with pytest.raises(InputError, match=message):
        pick(features, "bald", np.ones(9, bool), 2)


@pytest.mark.parametrize(
    ("rule", "free", "count", "message"),
    [
        ("nothing", np.ones(9, bool), 2, "no such rule; there are random"),
        ("bald", np.ones(8, bool), 2, r"expected free \(9,\), one flag a row; got \(8,\)"),
        ("bald", np.arange(9) < 3, 4, "got count=4; 3 are free"),
        ("badge", np.ones(9, bool), 0, "got count=0"),
    ],
)
def test_what_cannot_be_chosen_is_refused(rule, free, count, message):
    with pytest.raises(ValueError, match=message):
        pick(np.zeros((9, WIDTH), np.float32), rule, free, count)


def test_targets_of_another_width_are_refused():
    features, free = scan_made.pool(90)
    with pytest.raises(InputError, match="targets: found width 5"):
        pick(features, "badge", free, targets=features[:3, :5])


def test_only_rules_of_single_rows_have_scores():
    features, _ = scan_made.pool(90)
    for rule in ("random", "badge", "eer"):
        with pytest.raises(ValueError, match="does not look at each row alone"):
            scan.score_all(Tiny(), features, rule, KEY)


# ---- memory and compilations


def test_rounds_of_new_fits_are_compiled_once():
    features, free = scan_made.pool(600)
    pick(features, "bald", free, 5)
    before = passing._step._cache_size(), sharding._picked._cache_size()
    for seed in range(1, 4):
        found = pick(features, "bald", free, 5, head=Tiny(seed))
        assert free[found].all()
        free[found] = False
    assert (passing._step._cache_size(), sharding._picked._cache_size()) == before


def test_predictions_of_the_whole_pool_never_stand_in_memory():
    """Nor the features: what a block's program holds does not grow with the pool."""
    graph, state, rule = *passing.nnx.split(Tiny()), batch_rule("bald")
    sizes = []
    for rows in (BLOCK, 64 * BLOCK):
        shape = jax.ShapeDtypeStruct((rows,), jnp.float32)
        block = jax.ShapeDtypeStruct((BLOCK, WIDTH), jnp.float32)
        static = {"graph": graph, "read": rule.read, "indices": 100, "mesh": ONE}
        lowered = passing._step.lower(shape, (state, KEY, np.int32(0)), block, **static)
        memory = lowered.compile().memory_analysis()
        sizes.append(memory.temp_size_in_bytes)
        assert memory.alias_size_in_bytes >= 4 * rows  # what is kept is written in place
    assert sizes[1] < 1.1 * sizes[0]
    assert sizes[1] < 100 * BLOCK * CLASSES * 4 * 2


def test_what_rules_keep_of_a_row_is_known():
    keep = {
        rule: scan.bytes_per_row(Tiny(), batch_rule(rule), WIDTH, INDICES)
        for rule in ("random", "bald", "badge", "eer")
    }
    assert keep["random"] == 0
    assert keep["bald"] == 4
    assert keep["badge"] == 4 * (CLASSES + WIDTH + 1)
    assert keep["eer"] == 4 * (INDICES * CLASSES + 1)


def test_random_does_not_even_look_at_the_pool(monkeypatch):
    features, free = scan_made.pool(90)
    monkeypatch.setattr(scan.Shards, "read", None)
    assert free[pick(features, "random", free)].all()
