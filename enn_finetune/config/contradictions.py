"""What makes no sense together: keys that contradict one another, and keys that have no effect."""

from dataclasses import fields

from enn_finetune.config.policy import ProxyConfig
from enn_finetune.config.rules import EPISTEMIC, FEATURES_ALONE, pays_no_heed
from enn_finetune.config.schema import Config


def contradictions(config: Config) -> list[str]:
    """Every fault of a config whose values are each allowed: what was found, and what to do."""
    faults = []
    if config.head.form == "linear" and not config.closed_form:
        faults.append(
            "head.form: linear is solved in closed form, which needs backbone.tune = frozen and "
            f"regime = pool, got {config.backbone.tune} and {config.regime}; use head.form = mlp"
        )
    if config.head.kind == "neuronal" and not config.closed_form:
        faults.append(
            "head.kind: neuronal is solved for on features, which needs backbone.tune = frozen and "
            f"regime = pool, got {config.backbone.tune} and {config.regime}; use head.kind = epinet"
        )
    if config.backbone.tune != "frozen" and config.backbone.layers != "last":
        faults.append(
            "backbone.layers: only a frozen encoder is read at other layers than its last, got "
            f"tune = {config.backbone.tune}; use backbone.layers = last"
        )
    if config.backbone.tune != "frozen" and config.backbone.pairs == "difference":
        faults.append(
            "backbone.pairs: only a frozen encoder reads pairs as differences, got "
            f"tune = {config.backbone.tune}; use backbone.pairs = joint or auto"
        )
    itself = config.policy == "standard" and not _drops(config)
    if itself and config.head.kind == "linear" and config.acquisition.rule in EPISTEMIC:
        faults.append(
            f"acquisition.rule: {config.acquisition.rule} reads the spread over indices, and a "
            "linear head has none; use head.kind = epinet, or margin, entropy, least_confidence"
        )
    faults += _policy_faults(config)
    asked = config.acquisition
    if asked.indices == 1 and asked.rule in EPISTEMIC:
        faults.append(
            f"acquisition.indices: {asked.rule} reads the spread over indices, and one index has "
            "none; give 2 or more (100 for rules that choose rows together)"
        )
    if config.budget.start > config.budget.labels:
        faults.append(
            f"budget.start: {config.budget.start} is more than budget.labels = "
            f"{config.budget.labels}"
        )
    if config.regime == "pool" and config.budget.start == 0:
        faults += _cold_start_faults(config)
    faults += _online_faults(config)
    task = config.task
    if bool(task.train) != bool(task.test) or (task.name == "custom" and not task.train):
        faults.append("task.train, task.test: a custom task names both files")
    faults += _description_faults(config)
    return faults


def _online_faults(config: Config) -> list[str]:
    """What stands against keys that the online regime reads."""
    faults, asked = [], config.acquisition
    if asked.threshold and (config.regime != "online" or asked.rule != "neuronal"):
        faults.append(
            "acquisition.threshold: is for a stream, which needs regime = online and "
            f"acquisition.rule = neuronal, got {config.regime} and {asked.rule}"
        )
    if config.regime == "online" and config.train.schedule == "linear" and not config.budget.steps:
        faults.append("train.schedule: linear decay ends at the last step; give budget.steps")
    if asked.anneal and not config.budget.steps:
        faults.append("acquisition.anneal: annealing ends at the last step; give budget.steps")
    if asked.revisit and asked.source == "epoch":
        faults.append(
            "acquisition.revisit: an epoch trains on no row twice; set acquisition.source = whole"
        )
    return faults


def _description_faults(config: Config) -> list[str]:
    """What stands against a head whose prior begins with descriptions of the classes."""
    head = config.head
    if not config.task.describe or (config.closed_form and head.kind != "neuronal"):
        return []
    return [
        "task.describe: only a regression or an epinet in closed form begins with what the classes "
        "are said to be, which needs backbone.tune = frozen, regime = pool, and head.kind = linear "
        f"or epinet (head.form = auto), got {config.backbone.tune}, {config.regime} and "
        f"{head.kind} ({head.form}); leave it out"
    ]


def _cold_start_faults(config: Config) -> list[str]:
    """What stands against a pool run in which nothing is bought before a rule is asked."""
    if proxied(config):
        return [f"budget.start: got 0 and policy = {config.policy}; give it at least 1 label"]
    if config.acquisition.rule in (*FEATURES_ALONE, "random") or config.task.describe:
        return []
    return [
        f"budget.start: got 0, but {config.acquisition.rule} asks a fitted head; give it at least "
        f"1 label, a rule that reads features alone: {', '.join(FEATURES_ALONE)}, or random, or "
        "descriptions of the classes (task.describe), which a head can begin with"
    ]


def warnings(config: Config) -> list[str]:
    """What a run of this config should be told before it begins, though it can be run."""
    heedless = config.acquisition.targets and pays_no_heed([config.acquisition.rule])
    said = [heedless] if heedless else []
    head = config.head
    given = [("head.form", head.form != "auto"), ("head.index_dim", bool(head.index_dim))]
    idle = [key for key, is_given in given if is_given]
    if head.kind != "epinet" and idle:
        said.append(f"{', '.join(idle)}: read by the epinet alone; head.kind is {head.kind}")
    return said + _idle_policy_keys(config)


SVPP = ("path", "layers", "head", "replay", "pseudo")
READ_BY = {
    "svpp": SVPP,
    "asvp": (*SVPP, "tolerance", "patience", "refreshes", "probe_steps"),
    "auto": tuple(field.name for field in fields(ProxyConfig) if field.name != "refreshes"),
    "standard": ("path", "replay", "pseudo"),
}
"""The keys of `proxy` that a policy reads; standard reads `head` where there is a `path`."""


def _idle_policy_keys(config: Config) -> list[str]:
    """A warning where keys of `proxy` are given that nothing reads."""
    read = {*READ_BY[config.policy], *(("head",) if config.proxy.path else ())}
    idle = [
        f"proxy.{field.name}"
        for field in fields(ProxyConfig)
        if field.name not in read and getattr(config.proxy, field.name) != field.default
    ]
    if not idle:
        return []
    return [f"{', '.join(idle)}: not read where policy = {config.policy}"]


def proxied(config: Config) -> bool:
    """True where something else than the model that is trained in the end chooses rows."""
    return config.policy != "standard" or bool(config.proxy.path or config.proxy.replay)


def _drops(config: Config) -> bool:
    """True where another encoder, fine-tuned in every round, chooses by MC-dropout."""
    proxy = config.proxy
    return config.policy == "standard" and bool(proxy.path) and proxy.head == "mc_dropout"


def _policy_faults(config: Config) -> list[str]:
    """What stands against choosing rows by another model than the one that is trained."""
    if not proxied(config):
        if config.proxy.pseudo:
            return [
                f"proxy.pseudo: got {config.proxy.pseudo}, which is for rounds in which another "
                "model chose; set policy = svpp, asvp or auto, or leave it at 0"
            ]
        return []
    what = f"policy = {config.policy}"
    what += "".join(f", proxy.{n} given" for n in ("path", "replay") if getattr(config.proxy, n))
    asked, faults = config.acquisition, []
    if config.backbone.tune == "frozen" or config.regime != "pool":
        faults.append(
            f"policy: got {what}, which is for rounds (regime = pool) with an encoder that is "
            f"trained in the end, got regime = {config.regime} and backbone.tune = "
            f"{config.backbone.tune}; set backbone.tune = full, or policy = standard"
        )
    if asked.candidates_share < 1 or asked.targets:
        faults.append(
            f"policy: got {what}, which scores the whole pool and knows no targets; leave "
            "acquisition.candidates_share and acquisition.targets as they are by default"
        )
    if "frozen" in config.proxy.modes:
        faults.append(
            "proxy.modes: got frozen among them; name modes that train some of the encoder, such "
            "as bitfit, lora, last"
        )
    if _drops(config) and config.head.kind != "linear":
        faults.append(
            "proxy.head: mc_dropout of an encoder that is fine-tuned (policy = standard) is in its "
            f"linear classification layer, got head.kind = {config.head.kind}; use linear"
        )
    spreadless = config.policy != "standard" and config.proxy.head in ("linear", "shaped")
    if spreadless and asked.rule in EPISTEMIC:
        faults.append(
            f"proxy.head: {asked.rule} reads the spread over indices, and the head "
            f"{config.proxy.head} has none; use proxy.head = epinet"
        )
    return faults
