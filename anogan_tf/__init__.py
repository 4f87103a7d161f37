"""AnoGAN for people who live in TensorFlow: how anomalous an image is, and where.

The public names are imported when they are first used, so that `import anogan_tf` and `anogan --help` cost nothing.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "calibration": ("Calibration",),
    "callbacks": ("Checkpoint", "SampleGrid", "TrainingWatch", "image_grid"),
    "autoencoder": ("AdversarialAutoencoder",),
    "comparisons": (
        "by_complexity",
        "discriminator_score",
        "embed_features",
        "nearest_neighbours",
        "nearest_pixels",
        "one_class_svm",
        "pca_residual",
    ),
    "data": ("ArraySource", "FileSource", "image_dataset", "list_images", "load_embedded", "load_images"),
    "data.tfds_sets": ("TfdsSource", "prepare_set"),
    "detector": ("AnoGAN",),
    "encoder": ("EncoderTrainer",),
    "evaluation": ("Evaluation", "evaluate"),
    "gan": ("GAN",),
    "inversion": ("Networks", "SearchResult", "search"),
    "memory": ("Memory",),
    "metrics": ("PixelMetrics", "auprc", "auroc", "image_metrics"),
    "networks": ("build_discriminator", "build_encoder", "build_generator", "feature_extractor"),
    "plots": ("contact_sheet", "embedding_figure", "loss_curves", "roc_figure", "score_histogram", "search_strip"),
    "preparation": ("Preparation",),
    "report": ("write_report",),
    "settings": ("SearchSettings",),
    "synthetic": ("SyntheticSource", "draw_defect"),
    "tiling": ("Tiling", "random_tiles"),
    "unfolding": ("Unfolding",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name):
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
