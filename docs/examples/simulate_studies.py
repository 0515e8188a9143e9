"""How often does a study of two settings find out which is better? Simulated, so that the truth is known.

    python docs/examples/simulate_studies.py --effect 0.3 --spread 0.2

Nothing is trained: the accuracy of a run is drawn at random, and PocketViT's own statistics judge it.
"""

import argparse
from collections import Counter

import numpy as np

from pocketvit.studies import compare, verdict

SEEDS = (1, 2, 3, 4, 5, 8)


def study(effect: float, spread: float, seeds: int, rng: np.random.Generator) -> tuple[float, str]:
    """The measured difference in points, and the first word of the verdict, of one study with so many seeds a row."""
    truth = {"old": 94.0, "new": 94.0 + effect}
    accuracies = {row: dict(enumerate(rng.normal(mean, spread, seeds) / 100)) for row, mean in truth.items()}
    result = compare(accuracies, {"new": "old"})["new"]
    return 100 * result.difference, verdict(result).split()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effect", type=float, default=0.3, help="by which the new setting is truly better, in points")
    parser.add_argument("--spread", type=float, default=0.2, help="standard deviation over seeds, in points")
    parser.add_argument("--studies", type=int, default=1000, help="to simulate for each number of seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of each row")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print("seeds  new row ahead   helps   hurts  undecided")
    for seeds in args.seeds:
        found = [study(args.effect, args.spread, seeds, rng) for _ in range(args.studies)]
        count = Counter(word for _, word in found)
        ahead = sum(difference > 0 for difference, _ in found)
        undecided = args.studies - count["helps"] - count["hurts"]
        shares = (f"{n / args.studies:.1%}" for n in (ahead, count["helps"], count["hurts"], undecided))
        print("{:5}  {:>13}  {:>6}  {:>6}  {:>9}".format(seeds, *shares))


if __name__ == "__main__":
    main()
