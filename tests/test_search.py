"""The search on toy generators whose minima are known in closed form, and Adam against NumPy."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.networks import latent
from anogan_tf.search.search import Networks, compile_stages, latent_search, sample_starts, stages, whitening_basis
from anogan_tf.search.settings import SearchSettings

RESIDUAL_ONLY = SearchSettings(weight=0.0, steps=400, learning_rate=0.05, tolerance=0.0, candidates=1)
BLOCK = 4


def identity(z, training):
    """G(z) = z, as images `[N, 1, d, 1]`."""
    return z[:, tf.newaxis, :, tf.newaxis]


def constant(z, training):
    """G(z) = z_0 in each of three pixels."""
    return tf.tile(z[:, tf.newaxis, :1, tf.newaxis], (1, 1, 3, 1))


def valleys(z, training):
    """G(z) = (z^2 - 1)^2 + z/2: two valleys, the deeper one left of 0."""
    return identity((z**2 - 1.0) ** 2 + 0.5 * z, training)


def doubled(images, training):
    return 2.0 * images


def unpad(*rows):
    return tf.constant(rows, tf.float32)[:, tf.newaxis, :, tf.newaxis]


def run(generator, images, settings, compared=doubled, starts=None, dimension=1, block=BLOCK):
    starts = sample_starts(settings, dimension) if starts is None else tf.constant(starts, tf.float32)
    return tf.function(lambda images: latent_search(Networks(generator, compared), images, starts, settings, block=block))(images)


def test_finds_the_query_of_an_identity():
    images = unpad([0.3, -0.7], [0.9, 0.1], [-0.2, 0.0])
    result = run(identity, images, RESIDUAL_ONLY, dimension=2)
    np.testing.assert_allclose(result.z, images[:, 0, :, 0], atol=0.01)
    np.testing.assert_allclose(result.loss, 0.0, atol=0.02)


def test_absolute_residuals_lead_to_the_median():
    result = run(constant, unpad([0.0, 0.2, 0.9]), RESIDUAL_ONLY)
    np.testing.assert_allclose(result.z, [[0.2]], atol=0.01)
    np.testing.assert_allclose(result.residual_loss, [0.2 + 0.7], atol=0.01)


def test_weight_mixes_the_two_sums():
    images = unpad([0.0, 0.2, 0.9])
    settings = dataclasses.replace(RESIDUAL_ONLY, weight=0.25)
    result = run(constant, images, settings)
    residual = np.abs(images - result.reconstruction).sum()
    np.testing.assert_allclose(result.residual_loss, [residual], rtol=1e-6)
    np.testing.assert_allclose(result.discrimination_loss, [2 * residual], rtol=1e-6)
    np.testing.assert_allclose(result.loss, [0.75 * residual + 0.25 * 2 * residual], rtol=1e-6)


def test_reference_loss_pushes_towards_what_the_critic_calls_real():
    def logits(images, training):
        return 5.0 * images[:, 0, :, 0]

    settings = dataclasses.replace(RESIDUAL_ONLY, weight=1.0, loss="reference", steps=50, keep="last")
    result = run(identity, unpad([-0.5]), settings, compared=logits, starts=[[-0.5]])
    assert result.z[0, 0] > 0.5
    np.testing.assert_allclose(result.discrimination_loss, np.log1p(np.exp(-5.0 * result.z[:, 0])), rtol=1e-4)


def test_the_prior_term_shrinks_z_and_stays_out_of_the_score():
    """min |x - z| + w z^2 / 2 lies at z = 1/w where x is beyond it."""
    settings = dataclasses.replace(RESIDUAL_ONLY, constraint="penalty", penalty_weight=2.0)
    result = run(identity, unpad([0.9], [0.2]), settings)
    np.testing.assert_allclose(result.z, [[0.5], [0.2]], atol=0.01)
    np.testing.assert_allclose(result.loss, [0.4, 0.0], atol=0.01)


def test_projection_ends_at_the_edge():
    far = [5.0, 0.0], [0.3, 0.0]
    ball = run(identity, unpad(*far), dataclasses.replace(RESIDUAL_ONLY, constraint="project"), dimension=2)
    np.testing.assert_allclose(np.linalg.norm(ball.z, axis=1), [latent.ball_radius(2), 0.3], atol=0.02)
    cube = run(identity, unpad(*far), dataclasses.replace(RESIDUAL_ONLY, constraint="project", prior="uniform"), dimension=2)
    np.testing.assert_allclose(cube.z, [[1.0, 0.0], [0.3, 0.0]], atol=0.02)


def test_restarts_keep_each_images_best():
    settings = dataclasses.replace(RESIDUAL_ONLY, restarts=2)
    images = unpad([-0.5], [0.4])
    starts = [[1.2], [-1.2]]
    both = run(valleys, images, settings, starts=starts)
    alone = [run(valleys, images, dataclasses.replace(settings, restarts=1), starts=[start]) for start in starts]
    losses = np.stack([result.loss for result in alone])
    assert losses[0, 0] > losses[1, 0] + 0.5  # the left valley alone reaches -0.5
    np.testing.assert_array_equal(both.loss, losses.min(0))


def test_keep_best_and_keep_last():
    """Steps as large as the way overshoot: the best z was an earlier one."""
    settings = dataclasses.replace(RESIDUAL_ONLY, steps=7, learning_rate=0.4)
    images = unpad([0.4])
    last = run(identity, images, dataclasses.replace(settings, keep="last"), starts=[[0.0]])
    best = run(identity, images, settings, starts=[[0.0]])
    np.testing.assert_allclose(best.loss, [0.0], atol=1e-4)
    assert last.loss[0] > 0.05
    np.testing.assert_allclose(last.loss, np.abs(0.4 - last.z[:, 0]), rtol=1e-5)


def test_adam_against_numpy():
    images = unpad([0.9, -0.4])
    settings = dataclasses.replace(RESIDUAL_ONLY, steps=5, learning_rate=0.1, keep="last")
    z, m, v = np.zeros((1, 2)), 0.0, 0.0
    for t in range(1, 6):
        gradient = np.sign(z - [[0.9, -0.4]])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        z = z - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    result = run(identity, images, settings, starts=[[0.0, 0.0]])
    np.testing.assert_allclose(result.z, z, rtol=1e-4)
    assert result.steps.numpy().tolist() == [5]


def test_rows_stop_when_they_have_converged_and_stay():
    """A query at the start can't improve; one far away goes on. Freezing one doesn't touch the other."""
    settings = dataclasses.replace(RESIDUAL_ONLY, tolerance=1e-3, patience=10, steps=60, learning_rate=0.01)
    images = unpad([0.0], [30.0])
    result = run(identity, images, settings, starts=[[0.0]])
    assert result.steps.numpy().tolist() == [10, 60]
    assert result.converged.numpy().tolist() == [True, False]
    np.testing.assert_array_equal(result.loss[1:], run(identity, images[1:], settings, starts=[[0.0]]).loss)


def test_no_tolerance_takes_every_step():
    result = run(identity, unpad([0.0]), RESIDUAL_ONLY, starts=[[0.0]])
    assert result.steps.numpy().tolist() == [400] and not result.converged.numpy().any()


def test_no_steps_score_the_start():
    result = run(identity, unpad([0.7]), dataclasses.replace(RESIDUAL_ONLY, steps=0), starts=[[0.1]])
    np.testing.assert_allclose(result.loss, [0.6], rtol=1e-6)
    assert result.steps.numpy().tolist() == [0]


def test_features_of_the_query_are_computed_once():
    calls = []

    def counting(images, training):
        def count(values):
            calls.append(values.shape)
            return values

        counted = tf.numpy_function(count, [images], tf.float32)
        return tf.ensure_shape(images + tf.stop_gradient(0.0 * counted), images.shape)

    run(identity, unpad([0.5]), dataclasses.replace(RESIDUAL_ONLY, weight=0.1, steps=10), compared=counting)
    # f(x) once, f(G(z)) in each of ten steps, at the last z and at the returned one
    assert len(calls) == 1 + 10 + 2


def test_one_trace_whatever_the_number_of_images():
    settings = dataclasses.replace(RESIDUAL_ONLY, steps=5)
    networks = Networks(identity, doubled)
    compiled = compile_stages(networks, settings)
    starts = sample_starts(settings, 2)
    everything = tf.function(
        lambda images: latent_search(networks, images, starts, settings, block=BLOCK, compiled=compiled),
        input_signature=[tf.TensorSpec((None, 1, 2, 1), tf.float32)],
    )
    for count in (1, 3, 4, 5, 23):
        assert everything(tf.zeros((count, 1, 2, 1))).loss.shape == (count,)
    assert [stage.experimental_get_tracing_count() for stage in compiled] == [1, 1, 1]
    assert everything.experimental_get_tracing_count() == 1


def test_an_image_is_its_own_in_any_company():
    settings = dataclasses.replace(RESIDUAL_ONLY, steps=100)
    images = tf.constant(np.random.default_rng(0).uniform(-1, 1, (23, 1, 2, 1)), tf.float32)
    order = np.random.default_rng(1).permutation(23)
    together = run(identity, images, settings, dimension=2, block=16)
    shuffled = run(identity, tf.gather(images, order), settings, dimension=2, block=16)
    alone = run(identity, images[5:6], settings, dimension=2, block=16)
    for field in together._fields:
        np.testing.assert_array_equal(np.asarray(getattr(together, field))[order], getattr(shuffled, field))
        np.testing.assert_array_equal(getattr(together, field)[5:6], getattr(alone, field))


@pytest.mark.parametrize("block", [5, 16])
def test_what_a_processor_does_with_left_over_rows_reaches_no_image(block):
    """On a processor that multiplies in panels of `size` rows, and gives those that fill none another last bit (here 0.1 off)."""
    size = tf.Variable(1)

    def in_panels(network):
        def calculate(rows, training):
            outputs, numbers = network(rows, training), tf.range(rows.shape[0])
            left_over = tf.cast(numbers >= rows.shape[0] // size * size, tf.float32)
            return outputs + 0.1 * tf.reshape(left_over, (-1, *[1] * (outputs.shape.rank - 1)))

        return calculate

    settings = RESIDUAL_ONLY.replace(mode="refine", steps=2, candidates=1, weight=0.1)
    images = tf.constant(np.random.default_rng(0).uniform(-1, 1, (23, 1, 2, 1)), tf.float32)
    networks = Networks(*(in_panels(network) for network in (identity, doubled, half)))
    searched = tf.function(lambda: latent_search(networks, images, sample_starts(settings, 2), settings, block=block))
    exact = searched()
    for panel in (2, 3, 4, 6, 8):
        size.assign(panel)
        for field, found in searched()._asdict().items():
            np.testing.assert_array_equal(found, getattr(exact, field), err_msg=f"{field}, panels of {panel}")


def test_bfgs_finds_the_query_too():
    images = unpad([0.3, -0.7], [0.9, 0.1], [-0.2, 0.0])
    settings = dataclasses.replace(RESIDUAL_ONLY, optimizer="bfgs", steps=40)
    result = run(identity, images, settings, dimension=2)
    np.testing.assert_allclose(result.z, images[:, 0, :, 0], atol=0.01)


def test_of_many_candidates_the_best_is_searched_from():
    settings = dataclasses.replace(RESIDUAL_ONLY, candidates=3, steps=0)
    starts = [[0.1], [0.8], [-0.5]]
    result = run(identity, unpad([0.75], [-0.4], [0.0]), settings, starts=starts)
    np.testing.assert_allclose(result.z[:, 0], [0.8, -0.5, 0.1])
    two = run(valleys, unpad([-0.5]), dataclasses.replace(RESIDUAL_ONLY, candidates=3, restarts=2), starts=[[1.2], [-1.2], [9.0]])
    assert two.loss[0] < 0.01  # the deeper valley was among the two


def half(images, training):
    """An encoder for `identity` that finds half of the way."""
    return 0.5 * images[:, 0, :, 0]


def test_the_encoder_alone_and_as_a_start():
    images = unpad([0.8, -0.4], [0.2, 0.6])
    networks = Networks(identity, doubled, half)
    settings = dataclasses.replace(RESIDUAL_ONLY.replace(mode="encoder"), weight=0.0)
    drawn = sample_starts(settings, 2)
    assert drawn.shape == (0, 2)
    alone = latent_search(networks, images, drawn, settings)
    np.testing.assert_allclose(alone.z, images[:, 0, :, 0] / 2)
    assert alone.steps.numpy().tolist() == [0, 0]
    refined = latent_search(networks, images, drawn, settings.replace(mode="refine", steps=30))
    np.testing.assert_allclose(refined.z, images[:, 0, :, 0], atol=0.01)


def test_the_encoder_is_one_candidate_of_many():
    images = unpad([0.8], [0.1])
    settings = SearchSettings(mode="refine", weight=0.0, steps=0, candidates=2, tolerance=0.0)
    result = latent_search(Networks(identity, doubled, half), images, tf.constant([[0.75]]), settings)
    np.testing.assert_allclose(result.z[:, 0], [0.75, 0.05])


def test_f_anogans_score_is_a_mean_of_squares():
    images = unpad([0.8, -0.4])
    settings = SearchSettings(mode="encoder", loss="f-anogan", kappa=0.5, weight=0.9)
    result = latent_search(Networks(identity, doubled, half), images, sample_starts(settings, 2), settings)
    squares = np.mean([0.4**2, 0.2**2])
    np.testing.assert_allclose(result.residual_loss, [squares], rtol=1e-6)
    np.testing.assert_allclose(result.discrimination_loss, [4 * squares], rtol=1e-6)
    np.testing.assert_allclose(result.loss, [squares + 0.5 * 4 * squares], rtol=1e-6)


def test_refilled_rows_change_nothing_but_the_rounds():
    """Rows that end at very different steps: with refilling, blocks wait for nobody."""
    settings = dataclasses.replace(RESIDUAL_ONLY, steps=200, tolerance=1e-3, patience=10, restarts=2)
    images = tf.constant(np.random.default_rng(0).uniform(-3, 3, (9, 1, 2, 1)), tf.float32)
    images = tf.tensor_scatter_nd_update(images, [[0], [5]], unpad([90.0, 5.0], [70.0, 9.0]))
    starts = sample_starts(settings, 2)
    networks, rounds = Networks(identity, doubled), tf.Variable(0)
    plain = stages(networks, settings)

    def counted(*arguments):
        rounds.assign_add(1)
        return plain.step(*arguments)

    results, needed = {}, {}
    for refill in (True, False):
        rounds.assign(0)
        results[refill] = tf.function(
            functools.partial(
                latent_search,
                networks,
                sampled=starts,
                settings=settings,
                block=4,
                compiled=plain._replace(step=counted),
                refill=refill,
            )
        )(images=images)
        needed[refill] = int(rounds)
    for name, refilled in results[True]._asdict().items():
        np.testing.assert_array_equal(refilled, getattr(results[False], name))
    assert needed[True] < 0.8 * needed[False]


def test_whitening_of_a_linear_generator():
    """G(z) = W z: the metric is W^T W, and in the coordinates found all directions count alike."""
    weights = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32) * [[1.0], [7.0]]

    def linear(z, training):
        return tf.reshape(z @ tf.constant(weights, tf.float32), (-1, 3, 4, 1))

    basis = whitening_basis(Networks(linear, doubled), 2, SearchSettings(weight=0.0))
    metric = basis.T @ (weights @ weights.T) @ basis
    np.testing.assert_allclose(metric / metric[0, 0], np.eye(2), atol=0.15)
    np.testing.assert_allclose(np.linalg.svd(basis)[1].prod(), 1.0, rtol=1e-4)
