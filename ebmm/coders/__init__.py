"""Static encoders and decoders: what a memory may put before and behind what it writes.

An encoder maps patterns (M, *S) in [0, 1] to codes (M, C), a decoder codes (M, C) to patterns (M, *S) in [0, 1].
Both are only meta-learned and cost no memory floats. Any two modules of these shapes serve.
"""

from ebmm.coders.components import ComponentDecoder, PatchDecoder
from ebmm.coders.images import ImageDecoder, ImageEncoder, cosine_basis, image_coders
from ebmm.coders.keys import KeyEncoder, KeyMapEncoder
from ebmm.coders.vectors import Decoder, Encoder, SignDecoder, SignEncoder, Sine, packing_coders, sign_coders

__all__ = [
    "ComponentDecoder",
    "Decoder",
    "Encoder",
    "ImageDecoder",
    "ImageEncoder",
    "KeyEncoder",
    "KeyMapEncoder",
    "PatchDecoder",
    "SignDecoder",
    "SignEncoder",
    "Sine",
    "cosine_basis",
    "image_coders",
    "packing_coders",
    "sign_coders",
]
