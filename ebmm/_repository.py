"""The public address of the repository and this version's number and tag; written by ``make address``."""

REPOSITORY = "https://github.com/ebmm-book/ebmm"
VERSION = "0.1.0"
TAG = "v0.1.0"
