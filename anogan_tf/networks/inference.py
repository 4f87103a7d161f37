"""Copies of trained networks that calculate the same with less: batch normalization folded into weights, bfloat16."""

import collections

import numpy as np
import tensorflow as tf

from anogan_tf.networks.architectures import copy_network
from anogan_tf.runtime.backend import keras

layers = keras.layers


def for_inference(network, precision="float32"):
    """A copy of a functional network for use with `training=False`.

    Batch normalization is folded into the convolution or dense layer before it (through a reshape or a crop); one that
    follows anything else stays as it is.

    Args:
        network: a functional `keras.Model`; its weights are copied.
        precision: "float32" or "bfloat16". In bfloat16 weights and activations are rounded; what leaves the network is
            calculated from the last layer's input in float32.

    Returns:
        A functional `keras.Model` with the layers' names, float32 in and out.
    """
    # A copy first: a layer of the original may be part of several models, and then doesn't know which input is meant.
    network = copy_network(network)
    folded = _foldable(network)
    normalizations = {normalization.name for normalization, _ in folded.values()}
    last = _last(network)

    def clone(layer):
        if isinstance(layer, layers.SpectralNormalization):  # whose weights were normalized in training
            layer = layer.layer
        config = layer.get_config()
        if layer.name in folded:
            config["use_bias"] = True
        if "dtype" in config and not isinstance(layer, layers.InputLayer):
            whole = layer.name in last or isinstance(layer, layers.BatchNormalization)
            config["dtype"] = "float32" if whole else precision
        kind = _LeakyReLU if type(layer) is layers.LeakyReLU and layer.negative_slope > 0.0 else type(layer)
        return kind.from_config(config)

    def call(layer, inputs, *args, **kwargs):
        return inputs if layer.name in normalizations else layer(inputs, *args, **kwargs)

    copy = keras.models.clone_model(network, clone_function=clone, call_function=call)
    copy.trainable = False
    for layer in network.layers:
        if layer.name in folded:
            copy.get_layer(layer.name).set_weights(_folded_weights(layer, *folded[layer.name]))
        elif layer.name not in normalizations:
            spectral = isinstance(layer, layers.SpectralNormalization)
            copy.get_layer(layer.name).set_weights((layer.layer if spectral else layer).get_weights())
    return copy


class _LeakyReLU(layers.LeakyReLU):  # type: ignore[name-defined]
    """LeakyReLU that tells the slope by its output's sign, which is its input's.

    So nothing but the activation needs the sum before it, and TensorFlow can fuse convolution, bias and activation. With
    Keras's own its graph optimizer (2.21) sometimes fuses them in a differentiated loop all the same, fails and says so.
    """

    def call(self, inputs):
        @tf.custom_gradient
        def leaky(inputs):
            outputs = tf.nn.leaky_relu(inputs, self.negative_slope)

            def gradient(upstream):
                return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=outputs, alpha=self.negative_slope)

            return outputs, gradient

        return leaky(inputs)


def _foldable(network):
    """`{name of a linear layer: (its batch normalization, the reshape between them or None)}`."""
    consumed = [_producer(tensor).name for layer in network.layers for tensor in _inputs(layer)]
    uses = collections.Counter([*consumed, *_last(network)])
    folded = {}
    for layer in network.layers:
        if not isinstance(layer, layers.BatchNormalization) or layer.axis not in (-1, len(layer.input.shape) - 1):
            continue
        linear, between = _producer(layer.input), None
        wanted: tuple = (layers.Conv2D, layers.Conv2DTranspose, layers.Dense)
        if isinstance(linear, (layers.Reshape, layers.Cropping2D)) and uses[linear.name] == 1:
            wanted = wanted[2:] if isinstance(linear, layers.Reshape) else wanted[:2]
            linear, between = _producer(linear.input), linear
        if isinstance(linear, wanted) and uses[linear.name] == 1 and linear.activation is keras.activations.linear:
            folded[linear.name] = (layer, between)
    return folded


def _folded_weights(layer, normalization, between):
    """Kernel and bias of `layer` that do what `layer` and `normalization` did."""
    kernel, *bias = layer.get_weights()
    mean, variance = (np.asarray(value) for value in (normalization.moving_mean, normalization.moving_variance))
    scale = 1.0 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        scale = scale * np.asarray(normalization.gamma)
    shift = -mean * scale
    if normalization.center:
        shift = shift + np.asarray(normalization.beta)
    if isinstance(between, layers.Reshape):
        # From channels of the feature map to the units that it is made of.
        scale, shift = (np.broadcast_to(value, between.output.shape[1:]).ravel() for value in (scale, shift))
    if bias:
        shift = shift + bias[0] * scale
    # A transposed convolution's kernel is [height, width, out, in]; the others end with their outputs.
    transposed = isinstance(layer, layers.Conv2DTranspose)
    return [kernel * (scale[:, np.newaxis] if transposed else scale), shift]


def _inputs(layer):
    return [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input)


def _last(network):
    """Names of the layers whose outputs are the network's."""
    return {_producer(output).name for output in network.outputs}


def _producer(tensor):
    """The layer that a symbolic tensor comes from."""
    return tensor._keras_history.operation
