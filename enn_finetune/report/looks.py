"""How each arm is drawn, alike in every picture and table: colour by rule, dash by head."""

from typing import NamedTuple

from enn_finetune.savings import Summary

# Okabe and Ito's colours and three more, told apart with the common colour blindnesses; the
# lighter ones are for a dark page.
LIGHT = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#7A5195", "#8C4A2F",
    "#5A7D1E", "#C2185B",
)  # fmt: skip
DARK = (
    "#5CB8F2", "#FF8F4D", "#2FCC9C", "#EDA4CB", "#F0C04A", "#A9DBFF", "#B79BD6", "#D99A80",
    "#A6CC66", "#FF7BA8",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", "--", "-.", ":")
GREYS = {"baseline": ("#4a4f57", "#d5dae1", "--"), "own": ("#8a919c", "#98a1ad", ":")}


class Look(NamedTuple):
    """One arm's colours on a light and a dark page, marker and dash (matplotlib's names)."""

    light: str
    dark: str
    marker: str
    dash: str


def looks(summary: Summary) -> dict[str, Look]:
    """Greys for the baseline and our head at random; other heads at random have their own colours.

    Heads with one rule each, and that the same, stand in one picture: each has its own colour.
    """
    arms = summary["arms"]
    chosen = [arm for arm in arms.values() if arm["role"] == "prioritised"]
    rules = list(dict.fromkeys(arm["rule"] for arm in chosen))
    heads = list(dict.fromkeys(arm["head"] for arm in arms.values() if arm["role"] == "head"))
    own = [arm["head"] for arm in arms.values() if arm["role"] == "own"]
    order = list(dict.fromkeys([*own, *(arm["head"] for arm in chosen)]))
    alone = _alone(summary)
    found = {}
    for name, arm in arms.items():
        if arm["role"] in GREYS:
            light, dark, dash = GREYS[arm["role"]]
            found[name] = Look(light, dark, "", dash)
            continue
        prioritised = arm["role"] == "prioritised"
        if name in alone:
            index = len(rules) + alone.index(name)
        elif prioritised:
            index = rules.index(arm["rule"])
        else:
            index = len(rules) + len(alone) + heads.index(arm["head"])
        place, turn = index % len(LIGHT), index // len(LIGHT)
        turn += order.index(arm["head"]) if prioritised else len(DASHES) - 1
        marker = MARKERS[place] if prioritised else ""
        found[name] = Look(LIGHT[place], DARK[place], marker, DASHES[turn % len(DASHES)])
    return found


def _alone(summary: Summary) -> list[str]:
    """Arms of heads that have one rule only, where another such head has the same one."""
    chosen = {n: arm for n, arm in summary["arms"].items() if arm["role"] == "prioritised"}
    heads = [arm["head"] for arm in chosen.values()]
    single = [name for name, arm in chosen.items() if heads.count(arm["head"]) == 1]
    rules = [chosen[name]["rule"] for name in single]
    return [name for name in single if rules.count(chosen[name]["rule"]) > 1]


class Group(NamedTuple):
    """Arms that are read off one picture."""

    title: str
    arms: tuple[str, ...]


FEW = 7  # arms that one picture holds without becoming a tangle


def groups(summary: Summary) -> list[Group]:
    """Pictures of few arms each: heads under random selection, then the rules on each head.

    A picture of rules shows random selection with the same head, and the baseline, too. Heads with
    one rule each share a picture. A study of few arms is one picture.
    """
    arms = summary["arms"]
    if len(arms) <= FEW:
        return [Group("all arms", tuple(arms))]
    found, single = [], []
    heads = tuple(name for name, arm in arms.items() if arm["role"] != "prioritised")
    if len(heads) > 1:
        found.append(Group("heads, labels bought at random", heads))
    for head in dict.fromkeys(arm["head"] for arm in arms.values()):
        rules = [n for n, a in arms.items() if a["head"] == head and a["role"] == "prioritised"]
        random = [n for n, a in arms.items() if a["head"] == head and a["role"] != "prioritised"]
        if len(rules) == 1:
            single += rules
        parts = _parts(rules) if len(rules) > 1 else []
        for number, part in enumerate(parts, 1):
            shown = dict.fromkeys([summary["baseline"], *random, *part])
            turn = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            found.append(Group(f"rules on the head {head}{turn}", tuple(shown)))
    for part in _parts(single):
        found.append(Group("other heads", tuple(dict.fromkeys([summary["baseline"], *part]))))
    return found


def _parts(arms: list[str]) -> list[list[str]]:
    """As few lists of at most `FEW` arms as it takes, about equally long."""
    count = -(-len(arms) // FEW)
    size = -(-len(arms) // count) if count else 1
    return [arms[start : start + size] for start in range(0, len(arms), size)]
