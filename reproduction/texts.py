"""The prose of docs/paper.md; `page.py` fills in what is in braces."""

HEAD = """\
# The paper, checked

Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10", ran everything once and reports the best of 20
evaluations on the test set. Here every row is repeated with several seeds, and compared like with like: the paper's
figure with our best of 20 evaluations. The accuracy after the last step, for which nothing is chosen, is given separately.
The paper's code evaluates after epochs 1, 6, …, 96 of 100, each of three passes, so after 3, 18, …, 288 passes and never
after the last; ours after 15, 30, …, 300.

This page is made by `python -m benchmarks.paper` from results/. To measure: `pocketvit study paper-table2`,
`pocketvit study paper-table3`, `pocketvit study paper-fig6`, `pocketvit bench paper`, `pocketvit profile paper`."""

RULES = """\
Between the two, a claim *cannot be told*; likewise if one of its rows has fewer than {least} runs. Accuracies are those
after the last step, except in claim 1; differences are those of the means over all seeds. Each interval has a confidence
level of 95 %: it comes from Student's t, with each row's variance over seeds moderated by that of the rows of the table,
except for rows that scatter far more than the others ([how often that is right](reading.md#how-often-it-is-right)). What a
seed does to all rows alike is left out as far as both rows have it. The interval of a ratio of images/s is that of the
difference of the logarithms.

p is corrected (Holm) over all comparisons of accuracy in its table, measured or not: {families}."""

CHANGES = """\
The first thresholds were fixed before the studies were run, and changed after the first results and after eleven runs of
Table 2. The present rules and statistics were made on 30 November 2026, **after all runs on H100s had been seen**
and before those on H200s:

- A claim about an effect rested on the estimated difference being at least half of the claimed size. More seeds do not
  settle that if the true size is near half: a study repeated would say something else. Now a whole interval has to be on
  one side of a threshold, which follows from the paper's words: 0 for a direction, the loss that it calls minimal for what
  it calls noticeable, half and twice the size for a size. Only a true difference exactly at a threshold is never settled.
- "Not beneficial" and "does not degrade" are judged by the minimal loss alone.
- That whitening speeds training up and that it does not translate to ViTs is one claim of the paper.
- Lion is compared with AdamW at each one's best learning rate, because Lion does not train at 2e-3.
- A row's variance is its own as well as that of all rows, differences use all seeds, and the prediction intervals of the
  tables use the estimated variance components (before, the degrees of freedom were those of the worst case: ± 1.10 points
  with three seeds, which contain 99.9 % of runs instead of 95 %).

Seeds beyond the third (of `baseline`, `mla-q` and the first three rows of Table 3 the fifth) were decided on after the
first ones, for the three claims that 80 % power can settle; after these, five more of `mla-qkv`, and Lion's runs once more
with the code that had run AdamW's. So the tables have been judged three times, and a third of the 5 % of false alarms is
allowed each time: p ≤ 0.05 / 3. That the level is shared, and that times are compared only between runs of one version of
our code, was decided after the second time; neither turned a verdict into *reproduced*. A claim can have a new verdict
although its own row has no new runs: its reference has some, or the spread of all rows is known better.

{verdicts}

How often the rules decide, by simulation: eleven rows that scatter by 0.25 points, a claimed effect of 0.88 points, and a
true effect that is a multiple of it. The rule about a size asks for more than half:

{rates}"""

RUNS_NOTE = """\
n: runs, each with its own seed. Ours: mean ± standard deviation over seeds (n − 1), in percent. Verdict: whether the
paper's figure is in the 95 % prediction interval of one more run of ours. The interval comes from Student's t, with the
variance over seeds pooled over the rows of the table, except for rows that scatter far more than the others, and with the
degrees of freedom by the estimated shares of seeds and noise.{held} If it is wider than ± {narrow} points, a figure inside
it cannot be told. Time: training with augmentation; the paper's on an RTX 3090 (on
four under DDP), ours on one {device}.{others}"""

OTHERS_NOTE = (
    " Runs on other hardware ({others}) count only for accuracy, so a time may be from fewer runs than n; † marks a time "
    "of a row with other hardware only, from the runs of one version of our code."
)

EARLIER_NOTE = (
    "‡ Run before the copies in a batch were shuffled: CutMix and MixUp mixed an image with fewer others than the paper's "
    "code does, which draws partners at random. To be run again."
)

TABLE2_NOTE = """\
The paper's code uses CutMix or MixUp, with equal probability, for half of the batches; without one of them, the other one
gets all of these (`no-mixup`, `no-cutmix`). In the rows ending in `-only`, the other one keeps its share. `ba` is the
baseline with Batch Augmentation, every image three times in a batch: what the paper's code does on several GPUs. Which of
the two reached 93.65 % is not recorded. All rows use a learning rate of 2e-3, as in the paper, unless they name another:
the default of the paper's code is 1e-3, and Lion needs a smaller rate than AdamW. With batches of 1,024, the paper's code
makes 14,600 steps, because each of its epochs is three passes and drops one partial batch; ours drop one per pass and
make 14,400."""

TABLE3_NOTE = """\
`width192` is `baseline` of Table 2, with the same runs. Each table's intervals come from the spread of its own rows, so the
paper's figure can be inside one and outside the other; claim 1 is judged by Table 2."""
