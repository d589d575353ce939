"""A config names its decoder."""

import pytest

from oasis_cli.errors import WeightsError
from oasis_cli.model.oasis import OasisConfig


def test_a_config_without_a_kind_is_of_the_fast_decoder():
    data = OasisConfig().to_dict()
    del data["decoder"]["kind"]
    assert OasisConfig.from_dict(data) == OasisConfig()


def test_an_unknown_decoder_is_refused():
    data = OasisConfig().to_dict()
    data["decoder"] = {"kind": "crystal"}
    with pytest.raises(WeightsError, match="crystal"):
        OasisConfig.from_dict(data)
