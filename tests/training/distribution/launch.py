"""Starts several processes with several CPUs each, by the method of this backend's framework."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras

BACKEND = keras.backend.backend()


def launch(module, arguments, processes, cpus):
    """Start a module in several processes, and return them."""
    flags = f"--xla_force_host_platform_device_count={cpus} --xla_backend_optimization_level=0"
    common = {**os.environ, "XLA_FLAGS": flags, "CPUS": str(cpus)}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environments = [{}]
    if BACKEND == "torch":
        start = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command[2:2] = [*start, "-m"]
    elif processes > 1:
        environments = _cluster(processes)
    return [subprocess.Popen(command, env=common | more) for more in environments]


def kill(process):
    """Kill a process, and its children if it is torchrun."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def make_cpus():
    """Give TensorFlow several virtual CPUs. For JAX, XLA_FLAGS does this."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["CPUS"])
        tf.config.set_logical_device_configuration(cpu, parts)


def _cluster(processes):
    """Return the environment variables of each process, by which the framework finds the others."""
    addresses = [f"localhost:{free_port()}" for _ in range(processes)]
    for index in range(processes):
        if BACKEND == "tensorflow":
            task = {"type": "worker", "index": index}
            yield {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}
        else:
            yield {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0],
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
            }


def free_port():
    """Return a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]
