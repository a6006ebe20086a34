"""Dawid and Skene's expectation maximisation in plain loops: https://doi.org/10.2307/2346806, sections 2 and 3.

Symmetric in the two answers, with soft labels and a prior, as `reward.people.dawid_skene` defines them.
"""

FIRST, SECOND, TIE = range(3)


def dawid_skene(labels, labellers, *, smoothing, steps):
    """Run `steps` of EM on `labels`, {pair: {labeller: [P(first), P(second), P(tie)]}}, from the prior's mean.

    Returns: {pair: posterior}, {labeller: (right, wrong, tie)}, {labeller: tie where neither}, share of ties.
    """
    mean, neither_mean, ties_mean = (0.7, 0.2, 0.1), 0.5, 0.1
    better = {labeller: mean for labeller in labellers}
    neither = {labeller: neither_mean for labeller in labellers}
    ties = ties_mean if any(said[TIE] > 0 for about in labels.values() for said in about.values()) else 0.0

    def says(labeller, truth, outcome):
        if truth == TIE:
            return neither[labeller] if outcome == TIE else (1 - neither[labeller]) / 2
        right, wrong, tie = better[labeller]
        return tie if outcome == TIE else right if outcome == truth else wrong

    posterior = {}
    for step in range(steps):
        for pair, about in labels.items():
            joint = [(1 - ties) / 2, (1 - ties) / 2, ties]
            for labeller, said in about.items():
                for truth in range(3):
                    joint[truth] *= sum(said[outcome] * says(labeller, truth, outcome) for outcome in range(3))
            posterior[pair] = [value / sum(joint) for value in joint]
        if step == steps - 1:
            break
        counts = {labeller: [[0.0] * 3 for _ in range(3)] for labeller in labellers}
        for pair, about in labels.items():
            for labeller, said in about.items():
                for truth in range(3):
                    each = [said[outcome] * says(labeller, truth, outcome) for outcome in range(3)]
                    for outcome in range(3):
                        counts[labeller][truth][outcome] += posterior[pair][truth] * each[outcome] / sum(each)
        for labeller in labellers:
            found = counts[labeller]
            right = found[FIRST][FIRST] + found[SECOND][SECOND] + smoothing * mean[0]
            wrong = found[FIRST][SECOND] + found[SECOND][FIRST] + smoothing * mean[1]
            tie = found[FIRST][TIE] + found[SECOND][TIE] + smoothing * mean[2]
            total = right + wrong + tie
            better[labeller] = (right / total, wrong / total, tie / total)
            if sum(found[TIE]) + smoothing > 0:
                neither[labeller] = (found[TIE][TIE] + smoothing * neither_mean) / (sum(found[TIE]) + smoothing)
        if ties:
            ties = (sum(one[TIE] for one in posterior.values()) + smoothing * ties_mean) / (len(labels) + smoothing)
    return posterior, better, neither, ties
