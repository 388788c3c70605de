# %% [markdown]
# # Export and serve
#
# This notebook exports a trained model, starts a server and sends valid and invalid requests over
# HTTP.
#
# Install it from a clone: `pip install -e ".[jax,tensorflow,cli,serve,image]"`. The export needs
# TensorFlow on every backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import base64
import contextlib
import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import tensorflow as tf
from PIL import Image

from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES

tf.get_logger().setLevel("ERROR")

# %% [markdown]
# ## Export
#
# The SavedModel contains the model, image decoding, the resizing used in training and the class
# names. The folder has version numbers, as TensorFlow Serving expects.

# %%
model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
folder = kt.export(model, "clothes", class_names=CLASS_NAMES, top_k=3)
for name, signature in tf.saved_model.load(str(folder)).signatures.items():
    takes = signature.structured_input_signature[1].values()
    print(f"{name:16}", *(f"{spec.dtype.name} {spec.shape}" for spec in takes))

# %% [markdown]
# ## Serve
#
# The command line is `keras-tokenlearner serve clothes`. Here the server runs as a process on a
# free port.

# %%
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = ["-m", "keras_tokenlearner.cli", "serve", "clothes", f"--port={port}", "--grpc-port=0"]
with open("server.log", "w") as log:
    server = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)


def ask(path, body=None):
    """Return the status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


status = None
while status != 200 and server.poll() is None:  # it starts, then runs each batch size once
    time.sleep(0.5)
    with contextlib.suppress(urllib.error.URLError):
        status, answer = ask("/v2/health/ready")
print(status, answer)

# %% [markdown]
# ## Send requests
#
# A client has image files of any size. The V1 protocol is the REST schema of TensorFlow Serving:
# JSON with the bytes as base64.

# %%
_, (images, labels) = load_fashion_mnist()


def png(image, size):
    written = io.BytesIO()
    Image.fromarray(image[..., 0]).resize((size, size)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


rows = [{"b64": png(images[place], size)} for place, size in enumerate((28, 100, 300))]
status, answer = ask("/v1/models/clothes:predict", {"instances": rows})
for label, row in zip(labels, answer["predictions"]):
    found = zip(row["top_class_names"], row["top_probabilities"])
    print(f"{CLASS_NAMES[label]:12} {status}:", *(f"{name} {share:.0%}, " for name, share in found))

# %% [markdown]
# The Open Inference Protocol, V2, takes named tensors. This request sends pixels instead of files.

# %%
field = {
    "name": "images",
    "datatype": "UINT8",
    "shape": [2, 28, 28, 1],
    "data": images[:2].ravel().tolist(),
}
status, answer = ask("/v2/models/clothes/infer", {"inputs": [field]})
outputs = {output["name"]: output["data"] for output in answer["outputs"]}
for label, name in enumerate(outputs["top_class_names"][::3]):  # three classes for each image
    print(f"{status}: image {label + 1} is called {name}")

# %% [markdown]
# ## Invalid requests
#
# The server rejects an invalid request with a reason. Other requests are not affected.

# %%
no_image = base64.b64encode(b"not an image").decode()
for bad in ({"instances": []}, {"instances": [{"b64": no_image}]}, {"instances": [[[0.5]]]}):
    status, answer = ask("/v1/models/clothes:predict", bad)
    print(status, answer["error"])

# %%
server.terminate()
server.wait()
print("stopped")

# %% [markdown]
# [Serving](../docs/serving.md) describes gRPC, batching and limits.
