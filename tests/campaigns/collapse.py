#!/usr/bin/env python3
"""Goal: see on real images what the coefficients of the paper's table 7 do, and table 4's terms beside SimSiam.
Method: every setting once, all of them with the same job otherwise, by `vicreg-train run` on the committed images; the verdict is
the service's own. Nothing is chosen by its outcome: every run is a row of the table. Writes tests/campaigns/collapse.md.

Fails when a run does, or when what the verdict was made for does not hold: without the variance term (mu = 0) vicreg is `collapsed`,
25/25/1 is not."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VICREG_BIN", ROOT / "build/bin"))
IMAGES = "fashion-mnist=tests/fixtures/fashion-mnist"
TABLE = ROOT / "tests/campaigns/collapse.md"
JOB = """name: collapse
preset: demo-cpu
data: {root: fashion-mnist}
expander: [256, 256, 256]
batch_size: 128
length: {steps: 120}
schedule: {warmup: 12 steps}
evaluation: {knn: {every: 120 steps, k: 20}}
"""

# lambda, mu, nu, and what the paper's table 7 says: top-1 on ImageNet after 100 epochs, or collapse.
COEFFICIENTS = [
    ("1/0/0", "collapse"), ("25/0/1", "collapse"), ("0/25/1", "collapse"), ("1/1/1", "collapse"), ("1/10/1", "collapse"),
    ("10/1/1", "collapse"), ("1/1/0", "57.5"), ("5/5/1", "68.1"), ("10/10/1", "68.2"), ("25/25/1", "68.6"), ("50/50/1", "68.3"),
]  # fmt: skip

# Table 4's rows of SimSiam, as published: none, variance, variance and covariance.
NETWORKS = [
    ("predictor, batch norm", ["embedding_norm=std"], ("67.9", "68.1", "67.6")),
    ("predictor, no batch norm", ["expander_norm=none"], ("35.1", "67.3", "67.1")),
    ("neither", ["expander_norm=none", "loss.predictor=0"], ("collapse", "56.8", "66.1")),
]
TERMS = [  # appendix C.4's weights
    ("none", [], 0),
    ("variance", ["loss.regularize={variance: 1}"], 1),
    ("variance, covariance", ["loss.regularize={variance: 1, covariance: 0.01}"], 2),
]


def train(job, sets, output):
    """Rows of a run, oldest first, and the service's verdict on them."""
    words = [BIN / "vicreg-train", "run", job, "--data-root", IMAGES, "--output", output]
    for word in sets:
        words += ["--set", word]
    lines = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode()
    verdict = subprocess.run([BIN / "vicreg-verdict"], input=lines.encode(), check=True, stdout=subprocess.PIPE).stdout.decode()
    return [json.loads(line) for line in lines.splitlines()], verdict.splitlines()[0]


def numbers(rows, verdict):
    """Medians of the 20 steps that the verdict looks at; kNN after the last."""

    def median(name):
        values = [row[name] for row in rows[-20:] if row[name] is not None]
        return f"{statistics.median_high(values):.3f}" if values else "-"

    health = " | ".join(median(name) for name in ("z_std_mean", "mismatch", "redundancy"))
    return f"{health} | `{verdict}` | {100 * rows[-1]['knn_accuracy']:.1f}"


def main():
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        job = pathlib.Path(folder) / "job.yaml"
        job.write_text(JOB)

        def run(title, sets):
            print(f"collapse: {title}", flush=True)
            rows, verdict = train(job, sets, f"{folder}/out")
            cells = numbers(rows, verdict)
            print(f"collapse: {title}: {cells}", flush=True)
            return cells, verdict

        def evaluate(export):
            words = [BIN / "vicreg-train", "evaluate", "--json", "--data-root", IMAGES, "--export", export]
            return json.loads(subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)

        table = []
        for name, paper in COEFFICIENTS:
            weights = dict(zip(("lambda", "mu", "nu"), name.split("/")))
            cells, verdict = run(name, [f"loss.{key}={value}" for key, value in weights.items()])
            table.append(f"| {name} | {cells} | {paper} |")
            if weights["mu"] == "0" and verdict != "collapsed" or name == "25/25/1" and verdict != "healthy":
                wrong.append(f"{name} is {verdict}")
            if name == "25/25/1":
                plain = evaluate(f"{folder}/out/default/collapse/export")
        simsiam = []
        for network, sets, paper in NETWORKS:
            for terms, keys, column in TERMS:
                for on in ("raw", "l2") if keys else ("-",):
                    more = [f"loss.regularize_on={on}"] if keys else []
                    cells, _ = run(f"simsiam, {network}, {terms}, {on}", ["loss.objective=simsiam", *sets, *keys, *more])
                    simsiam.append(f"| {network} | {terms} | {on} | {cells} | {paper[column]} |")
    TABLE.write_text(page(table, simsiam, plain))
    if wrong:
        raise SystemExit(f"collapse: {'; '.join(wrong)}: see {TABLE.relative_to(ROOT)}")


def page(table, simsiam, plain):
    scores = {score["features"]: f"{100 * score['as_is']:.1f}" for score in plain["scores"]}
    head = "spread | mismatch | redundancy | verdict | 20-NN, % | paper, top-1 % |"
    return f"""# What the coefficients do

Written by `scripts/campaign collapse`. Each row is one run, seed 1, of this job with the row's keys, on the committed {plain["bank"]} images
of Fashion-MNIST; nothing else differs and no run is left out.

```yaml
{JOB.rstrip()}
```

Spread, mismatch and redundancy are the medians of the last 20 steps, the verdict is the service's, 20-NN is of {plain["queries"]} test images
after the last step. For comparison, 20-NN of {", ".join(f"{name}: {score} %" for name, score in scores.items())} (trained: 25/25/1).
The last column is the paper's, linear on ImageNet with ResNet-50.

## Table 7: lambda/mu/nu

| lambda/mu/nu | {head}
|---|---|---|---|---|---|---|
{chr(10).join(table)}

## Table 4: SimSiam beside variance (1) and covariance (0.01)

Predictor and batch norm: `embedding_norm: std`, as published. No batch norm: `expander_norm: none`. Neither: also `predictor: 0`.
On: `regularize_on`. Spread and redundancy of what is regularised, of directions where nothing is.

| network | terms | on | {head}
|---|---|---|---|---|---|---|---|---|
{chr(10).join(simsiam)}
"""


if __name__ == "__main__":
    main()
