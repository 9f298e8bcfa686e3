"""The study of induction: its data are what they say, its predictors exact, its heads scored rightly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

from slt_jax.models.attention_only import (
    AttentionOnly,
    attention_weights,
    prefix_matching_scores,
    previous_token_scores,
)
from slt_jax.restriction import heads
from slt_jax.spectroscopy.agreement import half_way, own_transition, rank_agreement
from slt_jax.studies import induction, induction_training
from slt_jax.studies.markov_chains import (
    bigram,
    cross_entropy,
    divergence,
    entropy,
    last_follower,
    sample_chains,
    times_seen,
    uniform,
    unigram,
)

SYMBOLS = 3


@pytest.fixture(scope="module")
def tokens():
    return sample_chains(jax.random.key(3), 4000, 12, SYMBOLS)


# --- data


def test_every_sequence_has_a_chain_of_its_own_whose_rows_are_evenly_spread(tokens):
    """What follows the first symbol at its second visit is what followed it before, as often as exact sums say."""
    short = tokens[:, :7]
    second = np.asarray((times_seen(short, SYMBOLS) == 1) & (short[:, :-1] == short[:, :1]))
    found = np.asarray(last_follower(short, SYMBOLS) == short[:, 1:])[second]
    error = found.std() / np.sqrt(len(found))
    exact = probability_of_a_repeat(7)
    assert abs(found.mean() - exact) < 4 * error
    # one chain for all would repeat less often
    assert found.mean() - 1 / SYMBOLS > 10 * error
    shares = np.bincount(np.asarray(tokens[:, 0]), minlength=SYMBOLS) / len(tokens)
    np.testing.assert_allclose(shares, 1 / SYMBOLS, atol=4 * np.sqrt(1 / SYMBOLS / len(tokens)))


def probability_of_a_repeat(length):
    """The share of repeats among second visits of the first symbol, over all sequences with their probabilities."""
    total = repeats = 0.0
    for path in itertools.product(range(SYMBOLS), repeat=length - 1):
        sequence = (0, *path)
        visits = [t for t in range(length - 1) if sequence[t] == 0]
        if len(visits) < 2:
            continue
        weight = np.exp(log_probability(sequence, SYMBOLS))
        total += weight
        repeats += weight * (sequence[visits[1] + 1] == sequence[1])
    return repeats / total


def log_probability(sequence, symbols):
    """Of a sequence, given its first symbol: rows of Dirichlet-multinomial counts."""
    counts = np.zeros((symbols, symbols))
    for a, b in itertools.pairwise(sequence):
        counts[a, b] += 1
    rows = gammaln(symbols) - gammaln(counts.sum(axis=1) + symbols) + gammaln(counts + 1).sum(axis=1)
    return rows.sum()


# --- predictors


def test_counts_are_those_of_a_loop(tokens):
    for sequence in np.asarray(tokens[:20]):
        pairs, singles = np.zeros((SYMBOLS, SYMBOLS)), np.zeros(SYMBOLS)
        row = sequence[None]
        exact, flat = np.asarray(bigram(row, SYMBOLS))[0], np.asarray(unigram(row, SYMBOLS))[0]
        last = {}
        for t, (current, following) in enumerate(itertools.pairwise(sequence.tolist())):
            singles[current] += 1
            np.testing.assert_allclose(exact[t], (pairs[current] + 1) / (pairs[current].sum() + SYMBOLS), rtol=1e-6)
            np.testing.assert_allclose(flat[t], (singles + 1) / (t + 1 + SYMBOLS), rtol=1e-6)
            assert int(times_seen(row, SYMBOLS)[0, t]) == pairs[current].sum()
            assert int(last_follower(row, SYMBOLS)[0, t]) == last.get(current, -1)
            pairs[current, following] += 1
            last[current] = following


@pytest.fixture(scope="module")
def every():
    """All sequences of seven of two symbols, with their exact probabilities."""
    sequences = np.array(list(itertools.product(range(2), repeat=7)))
    weights = 0.5 * np.exp([log_probability(sequence, 2) for sequence in sequences])
    return jnp.asarray(sequences), weights


def test_the_bigram_predictor_is_the_law_of_the_sequences(every):
    sequences, weights = every
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    costs = np.asarray(cross_entropy(bigram(sequences, 2), sequences)).sum(axis=1)
    np.testing.assert_allclose(costs, -np.log(2 * weights), rtol=1e-5)
    # the other says something else of the same sequences
    others = np.asarray(cross_entropy(unigram(sequences, 2), sequences)).sum(axis=1)
    assert np.abs(others + np.log(2 * weights)).max() > 0.5


def test_no_predictor_costs_less_than_bigram_at_any_position_and_its_cost_is_its_entropy(every):
    sequences, weights = every

    def cost(predicted):
        return weights @ np.asarray(cross_entropy(predicted, sequences), float)

    exact = bigram(sequences, 2)
    best = cost(exact)
    np.testing.assert_allclose(best, weights @ np.asarray(entropy(exact), float), rtol=1e-5)
    # at the first position nothing is known to anybody
    assert (cost(unigram(sequences, 2)) > best + 1e-3).all()
    assert (cost(uniform(sequences, 2))[1:] > best[1:] + 1e-3).all()
    for tilt in (0.8, 1.25):
        tilted = exact**tilt / jnp.sum(exact**tilt, axis=2, keepdims=True)
        assert (cost(tilted) >= best - 1e-6).all()
        assert cost(tilted).sum() > best.sum() + 1e-4
    # what the other costs more is its divergence
    more = weights @ np.asarray(divergence(exact, unigram(sequences, 2)), float)
    np.testing.assert_allclose(cost(unigram(sequences, 2)) - best, more, rtol=1e-3, atol=1e-6)


def test_the_bigram_predictor_is_calibrated_on_samples_and_the_unigram_predictor_is_not(tokens):
    came = np.asarray(tokens[:, 1:] == 0)
    for predictor, calibrated in ((bigram, True), (unigram, False)):
        said = np.asarray(predictor(tokens, SYMBOLS)[..., 0])
        # surprise within each value of what was said, over values met often: a chi square
        scores = []
        for value in np.unique(said.round(4)):
            where = np.abs(said - value) < 1e-3
            if where.sum() > 300:
                spread = np.sqrt(value * (1 - value) / where.sum())
                scores.append((came[where].mean() - value) / spread)
        assert (np.max(np.abs(scores)) < 4.5) == calibrated


@pytest.mark.parametrize(
    "arguments",
    [(jax.random.key(0), 0, 5, 4), (jax.random.key(0), 2, 1, 4), (jax.random.key(0), 2, 5, 1), (0, 2, 5, 4)],
)
def test_chains_that_cannot_be_sampled_are_refused(arguments):
    with pytest.raises(ValueError, match=r"sample_chains: got|key: "):
        sample_chains(*arguments)


# --- the network and the scores of its heads


SMALL = AttentionOnly(vocabulary=SYMBOLS, width=8, layers=2, heads=2, length=12)


@pytest.fixture(scope="module")
def small(tokens):
    params = SMALL.init(jax.random.key(0), tokens[:1, :-1])["params"]
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)


def test_attention_is_a_causal_distribution_and_nothing_ahead_is_seen(small, tokens):
    inputs = tokens[:3, :-1]
    weights = np.asarray(attention_weights(SMALL, small, inputs))
    assert weights.shape == (2, 3, 2, 11, 11)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert (weights[..., np.triu(np.ones((11, 11), bool), 1)] == 0).all()
    logits = np.asarray(SMALL.apply({"params": small}, inputs))
    changed = np.asarray(SMALL.apply({"params": small}, inputs.at[:, 6].set((inputs[:, 6] + 1) % SYMBOLS)))
    np.testing.assert_allclose(changed[:, :6], logits[:, :6], rtol=1e-5, atol=1e-6)
    assert np.abs(changed[:, 6:] - logits[:, 6:]).max() > 1e-3


def test_positions_count_only_by_their_distance(small):
    """What is said after the same symbols is the same wherever they stand, if nothing before them can be seen."""
    near = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[:, 3:].set(-1e8) if path[-1].key == "offsets" else leaf, small
    )
    pattern = jnp.array([0, 1, 2, 2, 1, 0])
    row = jnp.concatenate([pattern, pattern[:5]])[None]
    logits = np.asarray(SMALL.apply({"params": near}, row))[0]
    # each layer looks back two steps: four positions into the pattern both halves are alike
    np.testing.assert_allclose(logits[4], logits[10], rtol=1e-4, atol=1e-5)
    far = np.asarray(SMALL.apply({"params": small}, row))[0]
    assert np.abs(far[4] - far[10]).max() > 1e-3


def test_the_mixture_is_that_of_a_softmax(small, tokens):
    inputs = tokens[:2, :-1]
    one = AttentionOnly(vocabulary=SYMBOLS, width=8, layers=1, heads=2, length=12)
    params = {name: small[name] for name in ("embed", "norm", "norm_0", "attention_0", "unembed")}

    def norm(stream, leaf):
        centred = stream - stream.mean(axis=-1, keepdims=True)
        return centred / np.sqrt(stream.var(axis=-1, keepdims=True) + 1e-6) * leaf["scale"] + leaf["bias"]

    p = jax.tree.map(np.asarray, params)
    stream = p["embed"]["embedding"][np.asarray(inputs)]
    inside, attention = norm(stream, p["norm_0"]), p["attention_0"]
    query, key, value = (
        np.einsum("btw,whd->bthd", inside, attention[name]["kernel"]) for name in ("query", "key", "value")
    )
    out = np.zeros_like(stream)
    for b, h, t in itertools.product(range(2), range(2), range(11)):
        scores = query[b, t, h] @ key[b, : t + 1, h].T / 2 + attention["offsets"][h, t::-1][: t + 1]
        weights = np.exp(scores - scores.max())
        out[b, t] += (weights / weights.sum()) @ value[b, : t + 1, h] @ attention["out"]["kernel"][h]
    expected = norm(stream + out, p["norm"]) @ p["unembed"]["kernel"]
    np.testing.assert_allclose(SMALL.clone(layers=1).apply({"params": params}, inputs), expected, rtol=2e-4, atol=2e-5)
    assert one == SMALL.clone(layers=1)


def test_the_heads_are_found_and_each_has_its_share_of_the_projections(small):
    found = heads(small)
    assert list(found) == ["head 0.0", "head 0.1", "head 1.0", "head 1.1"]
    assert sum(leaf.size for leaf in jax.tree.leaves(found["head 1.0"].origin(small))) == 4 * 8 * 4


def test_scores_are_0_for_even_attention_1_for_the_ideal_head_and_right_by_hand():
    inputs = jnp.array([[0, 1, 0, 0, 2]])
    steps = inputs.shape[1]
    even = np.tril(np.ones((steps, steps))) / np.arange(1, steps + 1)[:, None]
    back = np.eye(steps, k=-1)
    back[0, 0] = 1
    # after an earlier 0 came the 1 at position 1 and, for the last 0, that at position 3, its own
    match = np.eye(steps)
    match[2], match[3] = [0, 1, 0, 0, 0], [0, 0.5, 0, 0.5, 0]
    weights = jnp.asarray(np.stack([even, back, match]), jnp.float32)[None, None]
    np.testing.assert_allclose(previous_token_scores(weights)[0], [0, 1, score(match, np.eye(steps, k=-1))], atol=1e-6)
    matches = np.zeros((steps, steps))
    matches[2, 1] = matches[3, 1] = matches[3, 3] = 1
    by_hand = [0, score(back, matches), 1]
    np.testing.assert_allclose(prefix_matching_scores(weights, inputs)[0], by_hand, atol=1e-6)


def score(weights, matches):
    rows = matches.any(axis=1)
    even = matches.sum(axis=1) / np.arange(1, len(matches) + 1)
    return ((weights * matches).sum(axis=1) - even)[rows].sum() / (1 - even)[rows].sum()


# --- the study's own


def test_each_pattern_asks_for_its_part_of_the_whole_and_three_of_them_are_all_of_it():
    sequences = sample_chains(jax.random.key(1), 16, induction_training.LENGTH + 1, induction_training.SYMBOLS)
    targets = {name: np.asarray(part, float) for name, part in induction.targets_of(sequences).items()}
    count = 16 * induction_training.LENGTH
    for part in targets.values():
        assert part.sum() == pytest.approx(count, rel=1e-4)
    shares = [np.max(targets["all"] / np.where(part > 0, part, np.inf)) for part in map(targets.get, PARTS)]
    whole = sum(share * targets[name] for share, name in zip(shares, PARTS, strict=True))
    np.testing.assert_allclose(whole, targets["all"], rtol=1e-4)
    follower = np.asarray(last_follower(sequences, induction_training.SYMBOLS))
    asked = targets["repeats"].argmax(axis=2)[targets["repeats"].sum(axis=2) > 0]
    assert (asked == follower[targets["repeats"].sum(axis=2) > 0]).all()


PARTS = induction.PATTERNS


def test_concepts_are_0_for_the_uniform_predictor_and_what_is_exact_is_at_distance_0():
    params = induction_training.params_of(induction_training.initial(jax.random.key(0)))
    silent = {**params, "unembed": jax.tree.map(jnp.zeros_like, params["unembed"])}
    sequences = sample_chains(jax.random.key(1), 16, induction_training.LENGTH + 1, induction_training.SYMBOLS)
    found = {name: float(concept(silent)) for name, concept in induction.concepts(sequences).items()}
    for name in ("beyond uniform", "without order", "with order", "in-context score"):
        assert found[name] == pytest.approx(0, abs=1e-5)
    flat = uniform(sequences, induction_training.SYMBOLS)
    assert float(induction.distance(sequences, flat, silent)) == pytest.approx(0, abs=1e-7)
    exact = bigram(sequences, induction_training.SYMBOLS)
    away = float(induction.distance(sequences, exact, silent))
    assert away == pytest.approx(float(jnp.mean(divergence(exact, flat))), rel=1e-5)
    assert away > 0.1


def test_training_can_weigh_sequences_and_positions_and_weights_that_are_alike_change_nothing():
    state = induction_training.initial(jax.random.key(0))
    sequences = sample_chains(jax.random.key(1), 4, induction_training.LENGTH + 1, induction_training.SYMBOLS)
    plain = induction_training.training_loss(None, state.params, sequences)
    alike = induction_training.training_loss(lambda x: jnp.full(x.shape[0], 3.0), state.params, sequences)
    np.testing.assert_allclose(alike, plain, rtol=1e-6)
    first = induction_training.training_loss(lambda x: jnp.arange(4) == 0, state.params, sequences)
    np.testing.assert_allclose(first, induction_training.training_loss(None, state.params, sequences[:1]), rtol=1e-5)
    late = induction_training.training_loss(
        lambda x: jnp.ones((4, 64)) * (jnp.arange(64) > 60)[None], state.params, sequences
    )
    assert abs(float(late) - float(plain)) > 1e-4
    with pytest.raises(ValueError, match=r"weights: returned shape \(64,\) for 4 sequences"):
        induction_training.training_loss(lambda x: jnp.ones(64), state.params, sequences)


def test_a_few_steps_of_training_lower_the_loss():
    study = induction.study()
    state, advance = study.init(jax.random.key(0)), jax.jit(lambda state, step: study.update(state, step))
    held = sample_chains(jax.random.key(9), 64, induction_training.LENGTH + 1, induction_training.SYMBOLS)
    before = float(induction_training.training_loss(None, study.params_of(state), held))
    for step in range(30):
        state = advance(state, jnp.int32(step))
    after = float(induction_training.training_loss(None, study.params_of(state), held))
    # ln 4 is 1.386: uniform, then on the way to the unigram predictor
    assert before > 1.38
    assert after < before - 0.02


# --- whether two ways of looking agree


def test_rank_correlation_is_that_of_scipy_and_its_error_is_that_of_repeated_readings():
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    truth, errors = np.arange(8.0), 1.0
    readings = truth + errors * random.standard_normal((400, 8))
    found = [rank_agreement(truth, one).correlation for one in readings]
    assert found[0] == pytest.approx(spearmanr(truth, readings[0]).statistic)
    claimed = np.mean(
        [rank_agreement(truth, one, right_errors=errors, seed=s).std_error for s, one in enumerate(readings[:40])]
    )
    assert claimed == pytest.approx(np.std(found), rel=0.5)
    assert rank_agreement(truth, truth).std_error == 0
    assert (
        rank_agreement(truth, truth).by_chance
        < 0.002
        < 0.1
        < rank_agreement(truth, [3, 1, 2, 0, 7, 5, 4, 6][::-1]).by_chance
    )


def test_a_curve_s_own_transition_and_the_half_way_of_readings_find_the_step():
    steps = np.arange(1, 2000)
    curve = 1 / (1 + np.exp(-6 * np.log(steps / 300)))
    interval = own_transition(steps, curve)
    assert abs(np.log(interval.step / 300)) < 0.03
    checkpoints = np.array([0, 100, 200, 400, 800, 1999])
    readings = 5 - 2 / (1 + np.exp(-6 * np.log(np.maximum(checkpoints, 1) / 300)))
    when = half_way(checkpoints, readings, 0.05)
    assert when.within(interval)
    assert when.low <= when.step <= when.high
    late = half_way(checkpoints, [0, 0, 0, 0, 0, 1])
    assert not late.within(interval)
    assert np.isnan(half_way(checkpoints, [1, 2, 3, 2, 1, 1.01], 0.1).step)
    with pytest.raises(ValueError, match="does not change"):
        own_transition(steps, np.ones(len(steps)))
