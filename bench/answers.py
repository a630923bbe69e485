"""How many refusals and error texts are told from captions, and how many captions are kept.

    python -m bench.answers             both figures for each set of labelled texts, and for texts left out of training
    python -m bench.answers --train     makes the classifier's weights

The texts are those of the tests (tests/backends/remote/answers). `unseen-*.txt` there are never trained on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from fastgen.backends.remote import no_answers, text_classifier
from fastgen.backends.remote.text_classifier import BITS, CLASSES, WEIGHTS
from tests.backends.remote import answers

Text = tuple[str, int]
"""A text, and the number of its class."""
LEAST_EXPANSIONS, MOST_EXPANSIONS = 25, 130
"""Texts from each line of a grammar: as many as it has alternatives, within these bounds."""
JOINED = 80
"""Texts of each kind and language that are several sentences."""
WEIGHT_OF_LABELLED = 4.0
FOLDS = 5


def from_grammars(seed: int = 0) -> list[Text]:
    """Texts that the grammars give, alone and joined."""
    rng = random.Random(seed)
    found: list[Text] = []
    for path in answers.GRAMMARS:
        by_class: dict[str, list[str]] = {}
        for label, _, line in answers.lines(path):
            count = min(max(line.count("|"), LEAST_EXPANSIONS), MOST_EXPANSIONS)
            texts = dict.fromkeys(answers.expand(line, rng) for _ in range(count))
            by_class.setdefault(label, []).extend(texts)
        found += [(text, CLASSES.index(_class(label))) for label, texts in by_class.items() for text in texts]
        found += _joined(by_class, rng)
    return found


def _joined(by_class: dict[str, list[str]], rng: random.Random) -> Iterable[Text]:
    gap = "" if any("。" in text for text in by_class["good"]) else " "

    def some(label: str, least: int, most: int) -> list[str]:
        return [
            text if text[-1:] in ".!?。！？" else text + "."
            for text in rng.sample(by_class[label], rng.randint(least, most))
        ]

    for _ in range(JOINED):
        yield gap.join(some("good", 2, 5)), 0
        yield gap.join(some("refusal", 2, 3)), 1


def _class(label: str) -> str:
    return {"good": "answer", "nothing": "refusal"}.get(label, label)


def labelled(paths: Iterable[Path]) -> list[Text]:
    """Texts that only words can tell from captions."""
    return [
        (text, CLASSES.index(_class(label)))
        for path in paths
        for label, _, text in answers.read(path)
        if label != "nothing" and not no_answers.by_form(text)
    ]


def train(texts: list[Text], weights_of: list[float], epochs: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of text_classifier.npz: a logistic regression."""
    torch.manual_seed(seed)
    given = [torch.from_numpy(text_classifier.features(no_answers.plain(text))) for text, _ in texts]
    norms = torch.tensor([len(places) ** -0.5 for places in given])
    wanted, counts = torch.tensor([number for _, number in texts]), torch.tensor(weights_of)
    table = torch.nn.EmbeddingBag(2**BITS, len(CLASSES), mode="sum")
    torch.nn.init.zeros_(table.weight)
    bias = torch.zeros(len(CLASSES), requires_grad=True)
    optimizer = torch.optim.Adam([table.weight, bias], lr=0.05)
    for _ in range(epochs):
        order = torch.randperm(len(given))
        for batch in order.split(256):
            picked = [given[i] for i in batch]
            starts = torch.tensor([0, *(len(places) for places in picked[:-1])]).cumsum(0)
            scores = table(torch.cat(picked), starts) * norms[batch, None] + bias
            losses = torch.nn.functional.cross_entropy(scores, wanted[batch], reduction="none", label_smoothing=0.02)
            loss = (losses * counts[batch]).mean() + 1e-5 * table.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = table.weight.detach().numpy()
    scale = np.float32(np.abs(found).max() / 127)
    return {"weights": np.round(found / scale).astype(np.int8), "scale": scale, "bias": bias.detach().numpy()}


def train_on(paths: Iterable[Path], where: Path = WEIGHTS) -> None:
    texts, grammar = labelled(paths), from_grammars()
    found = train(grammar + texts, [1.0] * len(grammar) + [WEIGHT_OF_LABELLED] * len(texts))
    np.savez_compressed(where, **found, digest=np.array(answers.digest()))
    text_classifier._weights.cache_clear()


def show(name: str, judged: answers.Judged) -> None:
    good, bad = judged.counts
    kept, named = good - len(judged.lost), bad - len(judged.passed)
    print(
        f"{name:24} {good:4} good, {kept / max(1, good):6.1%} kept   {bad:4} bad, {named / max(1, bad):6.1%} named"
        f"   {judged.right_kind / max(1, bad):6.1%} as what they are"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--files", type=Path, nargs="*", help="other labelled texts")
    parser.add_argument("--wrong", action="store_true", help="print the texts that are judged wrong")
    args = parser.parse_args()
    if args.train:
        train_on(answers.TRAINED)
    for path in args.files or answers.FILES:
        judged = answers.judge(path)
        show(path.stem, judged)
        if args.wrong:
            print(*(f"    lost    {text}" for text in judged.lost), sep="\n")
            print(*(f"    passed  {text}" for text in judged.passed), sep="\n")


if __name__ == "__main__":
    main()
