"""PPO's arithmetic once more: float64, one number at a time, written from the papers and not from the package."""

import math


def gae(rewards, values, mask, gamma, lam, after_the_end=None):
    """A_t = sum over l of (γλ)^l δ_{t+l}, over an answer's valid tokens alone."""
    advantages = [[0.0] * len(row) for row in rewards]
    for b, row in enumerate(mask):
        valid = [t for t, counts in enumerate(row) if counts]
        for place, t in enumerate(valid):
            total = 0.0
            for distance, s in enumerate(valid[place:]):
                after = valid[place + distance + 1] if place + distance + 1 < len(valid) else None
                value_after = values[b][after] if after is not None else (after_the_end[b] if after_the_end else 0.0)
                delta = rewards[b][s] + gamma * value_after - values[b][s]
                total += (gamma * lam) ** distance * delta
            advantages[b][t] = total
    return advantages


def whiten(x, mask):
    flat = [v for row, counts in zip(x, mask, strict=True) for v, c in zip(row, counts, strict=True) if c]
    mean = sum(flat) / len(flat)
    var = sum((v - mean) ** 2 for v in flat) / (len(flat) - 1)
    return [
        [(v - mean) / math.sqrt(var + 1e-8) if c else 0.0 for v, c in zip(row, counts, strict=True)]
        for row, counts in zip(x, mask, strict=True)
    ]


def kl(logp, ref_logp, which):
    log_ratio = ref_logp - logp  # log r of the blog post: reference over policy
    return {"k1": -log_ratio, "k2": log_ratio**2 / 2, "k3": min((math.exp(log_ratio) - 1) - log_ratio, 10.0)}[which]


def policy_token_loss(logp, old_logp, advantage, low, high, dual):
    ratio = math.exp(logp - old_logp)
    kept = min(max(ratio, 1 - low), 1 + high)
    objective = min(ratio * advantage, kept * advantage)
    if dual is not None and advantage < 0:
        objective = max(objective, dual * advantage)
    return -objective


def importance_ratio(logp, engine_logp):
    return math.exp(logp) / math.exp(engine_logp)


def value_token_loss(value, old_value, target, clip):
    kept = old_value + max(-clip, min(clip, value - old_value))
    return max((value - target) ** 2, (kept - target) ** 2) / 2


def aggregate(loss, mask, how):
    rows = [[v for v, c in zip(row, counts, strict=True) if c] for row, counts in zip(loss, mask, strict=True)]
    if how == "token-mean":
        flat = [v for row in rows for v in row]
        return sum(flat) / len(flat)
    if how == "seq-mean-token-sum":
        return sum(sum(row) for row in rows) / len(rows)
    return sum(sum(row) / len(row) for row in rows) / len(rows)


def token_logp(logits, token, temperature):
    scaled = [value / temperature for value in logits]
    highest = max(scaled)
    return scaled[token] - highest - math.log(sum(math.exp(value - highest) for value in scaled))


def entropy(logits, temperature):
    logps = [token_logp(logits, token, temperature) for token in range(len(logits))]
    return -sum(math.exp(value) * value for value in logps)


def token_rewards(scores, kls, mask, coefficient):
    out = []
    for score, row, counts in zip(scores, kls, mask, strict=True):
        last = max(t for t, c in enumerate(counts) if c)
        out.append(
            [(-coefficient * k + (score if t == last else 0.0)) if counts[t] else 0.0 for t, k in enumerate(row)]
        )
    return out
