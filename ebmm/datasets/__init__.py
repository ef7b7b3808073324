"""Images to store: characters, photographs, and invented ones that need no data."""

from ebmm.datasets.characters import ImageSet, digits, mnist, omniglot
from ebmm.datasets.invented import glyphs
from ebmm.datasets.photographs import PhotoSet, cifar10, folder_of_images, photos, tiny_imagenet

__all__ = [
    "ImageSet",
    "PhotoSet",
    "cifar10",
    "digits",
    "folder_of_images",
    "glyphs",
    "mnist",
    "omniglot",
    "photos",
    "tiny_imagenet",
]
