"""AnoGAN for people who live in TensorFlow: how anomalous an image is, and where.

The public names, which `__init__.pyi` lists, are imported when they are first used, so that `import anogan_tf` and
`anogan --help` cost nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
