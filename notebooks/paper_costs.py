# %% [markdown]
# # The paper's costs
#
# The paper prints the cost of its models. This notebook counts the same numbers layer by layer from
# the models of this package, without weights. A missing block or an extra token would change a
# number.
#
# Install it from a clone: `pip install -e ".[jax,plot]"`, or with another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import matplotlib.pyplot as plt

from keras_tokenlearner.analysis import catalog_costs, paper_costs

# %matplotlib inline

# %% [markdown]
# ## Tables 1 and 4
#
# GFLOPs are counted as in the paper: multiply-adds, and half of the cheap operations.

# %%
rows = [row for row in paper_costs(("1", "4")) if row["paper_gflops"]]
print(f"{'table':7}{'model':32}{'printed':>9}{'ours':>9}  note")
for row in rows:
    note = row["note"] and row["note"].split(";")[0].split(":")[0]
    numbers = f"{row['paper_gflops']:>9}{row['gflops']:>9}"
    print(f"{row['table']:7}{row['row']:32}{numbers}  {note}".rstrip())

# %%
apart = {row["row"]: float(row["gflops"]) / float(row["paper_gflops"]) - 1 for row in rows}
clear = [abs(apart[row["row"]]) for row in rows if not row["note"]]
print(f"{len(clear)} rows without a note, at most {max(clear):.1%} apart")

# %% [markdown]
# The paper prints one decimal, so small numbers differ most. All other tables: `keras-tokenlearner
# costs --paper`.
#
# ## Position of the TokenLearner
#
# How early can the tokens be learned? B/16 has 576 tokens at 384 x 384 pixels. A block on eight
# tokens costs almost nothing.

# %%
places = range(0, 13, 2)
plain = catalog_costs("vit_b16").paper_gflops
curves = {
    tokens: [
        catalog_costs("tokenlearner_b16_8at6", num_tokens=tokens, at=at).paper_gflops
        for at in places
    ]
    for tokens in (8, 64)
}

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained", facecolor="#101218")
axis.axhline(plain, color="#9098a8", linewidth=5, label="ViT-B/16")
for (tokens, costs), colour in zip(curves.items(), ("#ffb454", "#6cc7ff")):
    axis.plot(places, costs, "o-", color=colour, label=f"{tokens} tokens")
axis.set_xlabel("blocks before the TokenLearner", color="white")
axis.set_ylabel("GFLOPs", color="white")
axis.set_ylim(0, 62)
axis.legend(labelcolor="white", facecolor="#101218")
axis.set_facecolor("#101218")
axis.tick_params(colors="white")

# %% [markdown]
# The lines are straight, as in Figure 4 of the paper. Each block before the TokenLearner costs the
# same; the later blocks are almost free. In the middle, the paper's position, the model costs half.
