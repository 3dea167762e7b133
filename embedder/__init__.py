"""Pixels → vectors: mammograms, findings and their manifest, preparation, the network and its training."""
