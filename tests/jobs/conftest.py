import pytest


@pytest.fixture
def clip(make_clip):
    return make_clip(frames=40, cuts=(11, 26), size=(64, 48))
