# %% [markdown]
# # The paper's tables, recomputed
#
# The paper prints what its models cost. Here the same numbers are counted from the models that this
# package builds, layer by layer, without weights and without running anything: if a block were
# missing, or a token too many, it would show.
#
# It needs `pip install "keras-tokenlearner[jax,plot]"`, or another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import matplotlib.pyplot as plt

from keras_tokenlearner.analysis import catalog_costs, paper_costs

# %matplotlib inline

# %% [markdown]
# ## Tables 1 and 4
#
# GFLOPs as the paper counts them: multiply-adds, and half of the cheap operations.

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
# Print has one digit after the point, which is why small numbers differ most. All the other tables:
# `keras-tokenlearner costs --paper`.
#
# ## Where to put the TokenLearner
#
# The question behind these tables: how early may the tokens come in? B/16 has 576 of them at 384 x
# 384 pixels, and what a block costs falls to next to nothing once there are eight.

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
# Straight lines, as in Figure 4 of the paper: each full block that goes before costs the same, and
# the rest is nearly free. Half way in, where the paper puts the TokenLearner, the model costs half.
