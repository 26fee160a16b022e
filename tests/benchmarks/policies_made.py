"""A study of policies at a toy size, and records of one that are made up."""


def toy(**changes):
    import policies_cells

    toy = policies_cells.Size(40, 5, 20, 20, 8, 4, 4, 1, 3, 2)
    return toy._replace(**changes)


def record(arm, seed, labels, score, flops):
    parts = {part: {"flops": flops, "seconds": 1.0} for part in ("encoding", "scoring", "training")}
    return {
        "step": labels,
        "labels_bought": labels,
        "split": "test",
        "metrics": {"accuracy": score},
        "seconds": 1.0,
        "refreshed": [],
        "arm": arm,
        "head": "trained",
        "rule": arm,
        "seed": seed,
        **parts,
    }
