"""The public address of the repository and the tag of this version; written from ``_config.yml``."""

REPOSITORY = "https://github.com/ebmm-book/ebmm"
TAG = "v0.1.0"
