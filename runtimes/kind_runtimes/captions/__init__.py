"""Bundles that draw from captions: the loop of any bundle, whose step also takes the embedded words of a caption.

captions.json   caption.safetensors   golden.safetensors   onnx/step.onnx ...

`captions.json` holds a manifest as other bundles have it, and how many words of how many channels a step takes. Text
is embedded by the text encoder of the model, which is no part of a bundle.
"""

from kind_runtimes.captions.bundle import CaptionBundle, CaptionLoop, open_captions
from kind_runtimes.captions.caption import Caption

__all__ = ["Caption", "CaptionBundle", "CaptionLoop", "open_captions"]
