from pathlib import Path

import pytest

from autotune.errors import ConfigError
from autotune.simulator import profile as profile_module
from autotune.simulator.profile import profile_names, read_profile

SHIPPED = Path(profile_module.__file__).parent / "profiles" / "llama-8b-1xh100.yaml"


def test_every_shipped_profile_can_be_read_under_its_own_name() -> None:
    assert set(profile_names()) == {"deepseek-r1-2x8h100", "deepseek-r1-8xh200", "llama-8b-1xh100"}
    for name in profile_names():
        profile = read_profile(name)
        assert profile.name == name
        assert profile.provenance.source
        assert profile.provenance.assumed


def test_an_unknown_profile_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'llama-8b-1xh100'"):
        read_profile("llama-8b-1xh200")
    with pytest.raises(ConfigError, match="Known profiles: deepseek"):
        read_profile("zzz")


def test_a_profile_file_of_the_users_own_can_be_read(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(SHIPPED.read_text().replace("name: llama-8b-1xh100", "name: own"))
    assert read_profile(str(own)).name == "own"


def test_a_profile_file_with_a_wrong_key_names_the_key(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(SHIPPED.read_text().replace("decode_fixed_s", "decode_fixd_s"))
    with pytest.raises(ConfigError, match="decode_fixd_s"):
        read_profile(str(own))
