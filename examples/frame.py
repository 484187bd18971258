"""The runs of a figure as one tidy pandas frame: what a notebook begins with.

Run it in the suite's folder, cell by cell or whole: ``python examples/frame.py``.
"""

# %% Every run of Figure 10a at paper scale, from the records in evidence/; without output= from multirun_outputs/.
# Further arguments are those of ``python -m repro.figures``; from W&B:
# repro.load("fig5b", "scale=quick", "source=wandb", "tracking.entity=ME", "tracking.project=MINE")
import repro

runs = repro.load("fig10a", "output=evidence")
print(runs.frame.head())
print("\n".join(runs.broken + runs.notes) or "every record is whole")

# %% What each run was: run.json by curve and seed
for (curve, seed), info in runs.info.items():
    print(curve, seed, info["status"], info["config"]["regularization"]["weight_decay"])

# %% Final accuracy: the mean of the last three tests of a run, then mean and standard deviation over seeds
last = runs.frame.sort_values("iteration").groupby(["curve", "seed"]).tail(3)
finals = last.groupby(["curve", "seed"])["test_accuracy"].mean()
print(finals.groupby("curve").agg(["mean", "std", "count"]).round(4))
