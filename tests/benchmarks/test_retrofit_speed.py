"""The speed of students, on a tiny teacher."""

import keras
import pytest

from benchmarks import retrofit_speed
from keras_tokenlearner import costs, retrofit
from tests.models.test_retrofit import teacher as small_teacher

pytestmark = [
    pytest.mark.once("torch"),
    pytest.mark.skipif(
        keras.backend.backend() != "torch", reason="only on torch: same rows elsewhere"
    ),
]


@pytest.fixture
def run(monkeypatch):
    """Return a function that measures students of a tiny teacher, and returns the rows."""
    monkeypatch.setattr(
        retrofit_speed, "dinov2_small", lambda *_, **__: small_teacher(class_token=True)
    )

    def run(*models):
        named = [retrofit_speed.student(model) for model in models]
        return retrofit_speed.measure(named, size=32, batch_size=2, repeats=1)

    return run


def test_retrofit_speed_promised_speedup_equals_the_ratio_of_multiply_adds(run):
    rows = run("token_learner:1:4", "spatial_pooling:1:4", "token_merging:1:4")
    assert [row["reducer"] for row in rows] == [
        "token_learner",
        "spatial_pooling",
        "token_merging",
    ]
    assert all({"backend", *row} == set(retrofit_speed.COLUMNS) for row in rows)
    plain = small_teacher(class_token=True)
    promised = costs(plain).macs / costs(retrofit(plain, 1, 4)).macs
    assert float(rows[0]["promised"]) == pytest.approx(promised, rel=1e-3)
    for row in rows:
        ratio = float(row["speed_ratio"]) / float(row["promised"])
        assert float(row["realised"]) == pytest.approx(ratio, rel=0.01)


def test_retrofit_speed_of_spatial_pooling_to_an_impossible_number_of_tokens_raises(run):
    with pytest.raises(ValueError, match="must be 4 with spatial_pooling.*spatial_pooling:1:8"):
        run("spatial_pooling:1:8")
