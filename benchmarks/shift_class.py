"""Make one class of a checkpoint less likely, by a number of nats at every pixel:
python benchmarks/shift_class.py FOLDER CLASS NATS

The loss weights the pixels of an instance of c pixels by 1/c^p (§3.2), so that small instances are predicted too large:
their class is more likely by the logarithm of its mean weight over that of what is around it. For nuclei of 20 pixels
in windows of 160 and p = 0.2, this is 0.8 nats. The number to take off is chosen on validation images
(docs/notebook/nuclei.md). It is subtracted from the biases of the last convolution, so nothing else changes.
"""

import argparse
from pathlib import Path

from safetensors.torch import save

from pix2seqd.checkpoint import from_pretrained, read_tensors
from pix2seqd.files import write_atomically

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("category", metavar="CLASS", help="name of the class, or void")
    parser.add_argument("nats", type=float)
    given = parser.parse_args()
    checkpoint = from_pretrained(given.folder)
    names = ["void", *(category.name for category in checkpoint.taxonomy.categories)]
    value, pixels = names.index(given.category), checkpoint.model.config.decoder.patch**2
    file = given.folder / "model.safetensors"
    weights = read_tensors(file)
    weights["mask_decoder.conv_out.bias"][value * pixels : (value + 1) * pixels] -= given.nats
    with write_atomically(file) as temporary:
        temporary.write_bytes(save(weights, metadata={"format": "pt"}))
