"""`needs`: the estimated hours and memory of a distillation, against a manual count."""

import pytest

from keras_tokenlearner import costs, create_model, retrofit
from keras_tokenlearner.training.distillation.needs import needs

pytestmark = pytest.mark.once("torch")


def test_needs_of_a_distillation_states_the_memory_and_hours_of_a_manual_count():
    teacher = create_model("vit_pico8", classes=10)
    student = retrofit(teacher, at=1, num_tokens=4)
    found = {each.machine.name: each for each in needs(student, teacher, 30, 1024, images=1000)}
    operations = 2 * (costs(teacher).macs + 3 * costs(student).macs) * 1000 * 30
    hours = operations / (8 * 197e12 * 0.4) / 3600
    assert found["v5e-8"].hours == pytest.approx(hours)
    kept = 34 * 32 * (16 + 4) * 128  # a full block and one of 4 tokens, an eighth of the batch
    weights = 16 * student.count_params() + 4 * teacher.count_params()
    assert found["v5e-8"].gibibytes == pytest.approx((kept + weights) / 2**30)
    assert "more than its memory" not in str(found["v5e-8"])
    larger = needs(student, teacher, 30, 10**9)[-1]
    assert "more than its memory" in str(larger) and "not measured" in str(larger)
