"""Exported models under load: throughput, latency and number of wrong answers.

Run on an idle machine, with names of models or with exported models of images:

    pip install -e ".[cli,serve,tensorflow]"
    KERAS_BACKEND=tensorflow python -m benchmarks.load vit_b16 tokenlearner_b16_8at6

A named model is exported with random weights, which are large, so answers differ by image.

The server is another process, on the loopback. Each client sends V1 requests of one PNG, one after
another. Wrong answers are missing answers, and probabilities that differ from the SavedModel's by
more than 1e-4.
"""

import argparse
import base64
import http.client
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.formats import model_and_images
from benchmarks.rows import append_row, replace_file
from keras_tokenlearner import export
from keras_tokenlearner.serving.local import local_server
from keras_tokenlearner.serving.served_model import ServedModel

COLUMNS = ("model", "clients", "max_batch", "requests", "per_second", "p50_ms", "p99_ms", "wrong")


def main(arguments=None):
    """Measure each model with each number of clients, and write a CSV file of the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names of models, or paths of exported models")
    parser.add_argument("--size", type=int, default=224, help="pixels per side, of a named model")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--max-batch",
        type=int,
        default=32,
        help="largest batch of the server; 1 turns batching off",
    )
    parser.add_argument("--output", type=Path, default="benchmarks/results/load.csv")
    options = parser.parse_args(arguments)
    replace_file(options.output)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            path = Path(name) if Path(name).is_dir() else _export(name, options.size, Path(folder))
            questions = _questions(path)
            with local_server(path, "--max-batch", str(options.max_batch)) as server:
                _ask(server, questions, time.perf_counter() + 1)  # the first requests are slower
                for clients in options.clients:
                    row = dict(zip(COLUMNS, (path.name, clients, options.max_batch), strict=False))
                    row |= _load(server, questions, clients, options.seconds)
                    append_row(options.output, COLUMNS, row, ("keras", "tensorflow", "kserve"))


def _export(name, size, folder):
    """Export a named model with random weights, and return the folder of the SavedModel."""
    model, _ = model_and_images(name, size)
    return export(model, folder / name, check=False).path.parent


def _questions(path):
    """Return requests to a served model, with their correct answers."""
    import tensorflow as tf

    model = ServedModel(path)
    random = np.random.default_rng(0)
    channels = 1 if model.metadata.get("input_shape", [3])[-1] == 1 else 3
    found = []
    for _ in range(16):
        image = random.integers(0, 256, (64, 64, channels)).astype("uint8")
        content = tf.io.encode_png(image).numpy()
        row = model.check_row("encoded", {"encoded": content})
        signature, (row,) = model.decode("encoded", [row])  # decoded as in the server
        answer = model.answer(model.batch_key(signature, row), [row])[0]
        body = {"instances": [{"b64": base64.b64encode(content).decode()}]}
        found.append((json.dumps(body), answer["probabilities"]))
    return found


def _load(server, questions, clients, seconds):
    """Return the measurements of many concurrent clients."""
    start = time.perf_counter()
    results = [None] * clients

    def run(place):
        shifted = questions[place % len(questions) :] + questions[: place % len(questions)]
        results[place] = _ask(server, shifted, start + seconds)

    threads = [threading.Thread(target=run, args=[place]) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - start
    times = 1e3 * np.concatenate([times for times, _ in results])
    return {
        "requests": len(times),
        "per_second": f"{len(times) / passed:.1f}",
        "p50_ms": f"{np.percentile(times, 50):.1f}",
        "p99_ms": f"{np.percentile(times, 99):.1f}",
        "wrong": sum(wrong for _, wrong in results),
    }


def _ask(server, questions, end):
    """Send requests one after another until `end`. Return latencies and number of wrong answers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    path, headers = f"/v1/models/{server.name}:predict", {"Content-Type": "application/json"}
    times, wrong = [], 0
    while True:
        for body, right in questions:
            start = time.perf_counter()
            if start > end:
                return times, wrong
            try:
                connection.request("POST", path, body, headers)
                answer = json.loads(connection.getresponse().read())
                found = answer["predictions"][0]["probabilities"]
                wrong += not np.allclose(found, right, atol=1e-4)
            except (OSError, http.client.HTTPException, ValueError, LookupError):
                wrong += 1
                connection.close()
            times.append(time.perf_counter() - start)


if __name__ == "__main__":
    main()
