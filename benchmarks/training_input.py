"""Training examples a second that one core prepares: at first, and once images are decoded.

    OMP_NUM_THREADS=1 python benchmarks/training_input.py coco-512 coco:DIR@train

It takes processor time, so other programs hardly disturb it. The first and the second round have the same examples.
"""

import argparse
import time

import torch

from pix2seqd.data.loader import training_loader
from pix2seqd.training.recipes import RECIPES
from pix2seqd.training.train import training_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("data", help="training data, as in --train-data")
    parser.add_argument("--examples", type=int, default=60, help="in each round; at most as many as images are taken")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES[options.recipe].replace(train_data=options.data, train={"workers": 0})
    dataset = training_data(recipe)
    examples = training_loader(dataset, recipe, 0).dataset
    training_loader(dataset, recipe, 0).dataset[0]  # loads what is loaded once
    positions = range(min(options.examples, len(dataset)))
    for what in ("at first", "decoded"):
        began = time.process_time()
        for position in positions:
            examples[position]
        print(f"{what}: {len(positions) / (time.process_time() - began):.1f} examples a second")


if __name__ == "__main__":
    main()
