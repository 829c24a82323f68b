"""One door to every architecture."""

from __future__ import annotations

import pytest

from millrace.core.errors import ModelNotFound
from millrace.models import ARCHITECTURES, build


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("classes", [2, 10])
def test_every_architecture_answers_with_as_many_classes_as_asked(name: str, classes: int) -> None:
    assert build(name, num_classes=classes).output_shape == (None, classes)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="'resnet9000'") as caught:
        build("resnet9000", num_classes=2)
    assert "digits" in (caught.value.hint or "")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError):
        build("digits", num_classes=2, depth=50)
