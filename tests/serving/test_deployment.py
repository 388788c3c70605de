"""The files in docs/deployment have only fields of their schemas."""

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="reads the files")
kserve = pytest.importorskip("kserve", reason="the schema of its resources")

from kubernetes.client import models as kubernetes  # noqa: E402

from keras_tokenlearner.serving.kserve_server import STOP_SECONDS  # noqa: E402

pytestmark = pytest.mark.once("torch")
FOLDER = Path(__file__).parents[2] / "docs" / "deployment"
MODELS = {
    "InferenceService": kserve.V1beta1InferenceService,
    "Deployment": kubernetes.V1Deployment,
    "Service": kubernetes.V1Service,
}


def resources(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def class_of(kind):
    for module in (kserve, kubernetes):
        if hasattr(module, kind):
            return getattr(module, kind)
    return None


def unknown(value, kind, path=""):
    """Return the paths of fields that a resource of the Kubernetes API does not have."""
    listed = re.fullmatch(r"list\[(.*)\]", kind)
    if listed:
        return [x for i, row in enumerate(value) for x in unknown(row, listed[1], f"{path}[{i}]")]
    found = class_of(kind)
    if found is None:
        return []  # text, a number, or a dictionary of the user's own
    kinds = {name: found.openapi_types[field] for field, name in found.attribute_map.items()}
    bad = [f"{path}.{name}" for name in value if name not in kinds]
    known = [(name, row) for name, row in value.items() if name in kinds]
    return bad + [x for name, row in known for x in unknown(row, kinds[name], f"{path}.{name}")]


@pytest.mark.parametrize("name", ["kubernetes.yaml", "inference_service.yaml"])
def test_kubernetes_resource_has_only_fields_of_its_schema(name):
    for resource in resources(name):
        assert unknown(resource, MODELS[resource["kind"]].__name__) == []
        assert unknown({**resource, "sppec": 1}, MODELS[resource["kind"]].__name__) == [".sppec"]


@pytest.mark.parametrize("name", ["kubernetes.yaml", "inference_service.yaml"])
def test_kubernetes_pod_waits_for_the_start_and_the_stop_of_the_server(name):
    spec = resources(name)[0]["spec"]
    pod = spec["predictor"] if "predictor" in spec else spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > STOP_SECONDS
    (container,) = pod["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
