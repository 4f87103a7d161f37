"""Images from files, folders, tables, arrays, volumes and record files to pixels as they are stored."""

from anogan_tf.data.disk import DiskArray
from anogan_tf.data.embedded import EMBEDDED_CLASSES, load_embedded
from anogan_tf.data.entries import Entry, Picture, read_entry, read_picture
from anogan_tf.data.layouts import list_images
from anogan_tf.data.sources import ArraySource, FileSource, image_dataset, load_images, read_samples

__all__ = [
    "EMBEDDED_CLASSES",
    "ArraySource",
    "DiskArray",
    "Entry",
    "FileSource",
    "Picture",
    "image_dataset",
    "list_images",
    "load_embedded",
    "load_images",
    "read_entry",
    "read_picture",
    "read_samples",
]
