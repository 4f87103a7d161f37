"""A SavedModel run as TensorFlow Serving runs it: one session of the graph, the signatures' tensors fed and fetched."""

import tensorflow as tf


class Served:
    """`served(signature, images=...)` gives a dict of arrays; may be called by many threads at once."""

    def __init__(self, folder):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder))
        self.signatures = {name: signature for name, signature in loaded.signature_def.items() if not name.startswith("__")}

    def __call__(self, signature, **inputs):
        signature = self.signatures[signature]
        fed = {signature.inputs[name].name: value for name, value in inputs.items()}
        return self.session.run({name: info.name for name, info in signature.outputs.items()}, fed)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.session.close()
