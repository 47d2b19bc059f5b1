"""Policies of Stable-Baselines3: archives in, an archive out that the library itself loads and acts with."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoints import write_file

import rsoup as library
from rsoup.errors import IncompatibleError, RefusedFileError, UsageError
from rsoup.publish.parcel import pack
from rsoup.report import card
from rsoup.storage.pickled.plain_pickle import dump
from rsoup.storage.pickled.torch_write import plain_archive

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two PPO policies that share a start, one trained further than the other, and a SAC policy."""
    folder = tmp_path_factory.mktemp("policies")
    torch.manual_seed(0)
    ppo = sb3.PPO("MlpPolicy", "CartPole-v1", seed=0, n_steps=32, batch_size=32, n_epochs=1, device="cpu")
    ppo.learn(32)
    ppo.save(folder / "one.zip")
    ppo.learn(64)
    ppo.save(folder / "two.zip")
    sac = sb3.SAC("MlpPolicy", "Pendulum-v1", seed=0, learning_starts=4, buffer_size=50, device="cpu",
                  policy_kwargs={"net_arch": [8, 8]})  # fmt: skip
    sac.learn(12)
    sac.save(folder / "sac.zip")
    return {name: folder / f"{name}.zip" for name in ("one", "two", "sac")}


def members(path: Path) -> dict[str, bytes]:
    """Every member of an archive, checksums compared."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def state(path: Path) -> dict[str, torch.Tensor]:
    """The policy's tensors as Stable-Baselines3 loads them."""
    found: dict[str, torch.Tensor] = sb3.PPO.load(path, device="cpu").policy.state_dict()
    return found


def test_a_policy_soup_loads_and_acts(policies: dict[str, Path], tmp_path: Path) -> None:
    """PPO.load accepts the soup, whose policy is the average by hand; its optimiser begins anew; the rest is the first's."""
    paths = [policies["one"], policies["two"]]
    result = library.merge(library.make_recipe(paths, mix=["0.3", "0.7"]), tmp_path / "soup.zip")

    one, two, soup = state(paths[0]), state(paths[1]), state(tmp_path / "soup.zip")
    assert all(torch.equal(soup[n], (one[n].double() * 0.3 + two[n].double() * 0.7).float()) for n in one)
    model = sb3.PPO.load(tmp_path / "soup.zip", device="cpu")
    assert model.policy.optimizer.state_dict()["state"] == {}
    assert model.predict(model.observation_space.sample())[0] in (0, 1)
    ours, first = members(tmp_path / "soup.zip"), members(paths[0])
    assert list(ours) == list(first)
    changed = {"policy.pth", "policy.optimizer.pth"}
    assert all(ours[name] == first[name] for name in first.keys() - changed)
    assert any("VecNormalize" in note for note in result.notes)
    library.verify(tmp_path / "soup.zip", paths, rederive=True, load=True)


def test_training_goes_on_from_a_soup(policies: dict[str, Path], tmp_path: Path) -> None:
    """A soup without a history can be trained further."""
    recipe = library.make_recipe([policies["one"], policies["two"]], uniform=True)
    library.merge(recipe, tmp_path / "soup.zip")

    model = sb3.PPO.load(
        tmp_path / "soup.zip", env=sb3.common.env_util.make_vec_env("CartPole-v1"), device="cpu"
    )
    model.learn(32)

    assert model.policy.optimizer.state_dict()["state"]


def test_the_optimiser_is_kept_on_request(policies: dict[str, Path], tmp_path: Path) -> None:
    """`--optimizer-from two` keeps that ingredient's state, byte for byte."""
    recipe = library.make_recipe([policies["one"], policies["two"]], uniform=True, optimizer_from="two")
    library.merge(recipe, tmp_path / "soup.zip")

    name = "policy.optimizer.pth"
    assert members(tmp_path / "soup.zip")[name] == members(policies["two"])[name]
    assert sb3.PPO.load(tmp_path / "soup.zip", device="cpu").policy.optimizer.state_dict()["state"]


def test_several_optimisers_and_variables(policies: dict[str, Path], tmp_path: Path) -> None:
    """SAC has three optimisers and a variable beside the policy: all load, the variable is the first's, and that is said."""
    recipe = library.make_recipe({"a": policies["sac"], "b": policies["sac"]}, uniform=True)
    result = library.merge(recipe, tmp_path / "soup.zip")

    model = sb3.SAC.load(tmp_path / "soup.zip", device="cpu")
    assert all(o.state_dict()["state"] == {} for o in (model.actor.optimizer, model.critic.optimizer))
    assert any("'log_ent_coef' in pytorch_variables.pth is not mixed" in note for note in result.notes)


def test_a_policy_comes_out_in_any_format(policies: dict[str, Path], tmp_path: Path) -> None:
    """Archives become a .pt or .safetensors file of the policy's tensors; other checkpoints never an archive."""
    recipe = library.make_recipe([policies["one"], policies["two"]], uniform=True)
    library.merge(recipe, tmp_path / "soup.pt")
    library.merge(recipe, tmp_path / "again.safetensors")
    other = write_file(tmp_path / "w.safetensors", torch.load(tmp_path / "soup.pt", weights_only=True))

    with pytest.raises(UsageError) as error:
        library.merge(library.make_recipe([other]), tmp_path / "never.zip")

    assert error.value.code == "E0214"
    assert torch.load(tmp_path / "soup.pt", weights_only=True).keys() == state(policies["one"]).keys()


def test_an_archive_without_optimisers(policies: dict[str, Path], tmp_path: Path) -> None:
    """Keeping a state that is not there is refused."""
    bare = tmp_path / "bare.zip"
    with zipfile.ZipFile(bare, "w") as archive:
        for name, data in members(policies["one"]).items():
            if not name.endswith("optimizer.pth"):
                archive.writestr(name, data)
    recipe = library.make_recipe([bare, policies["two"]], uniform=True, optimizer_from="bare")

    with pytest.raises(UsageError) as error:
        library.merge(recipe, tmp_path / "soup.zip")

    assert error.value.code == "E0217"


def test_settings_that_are_no_plain_values(policies: dict[str, Path], tmp_path: Path) -> None:
    """An optimiser whose settings are tensors is not emptied by guessing; its whole state can be kept."""
    odd = tmp_path / "odd.zip"
    buffer = io.BytesIO()
    torch.save({"state": {}, "param_groups": [{"lr": torch.tensor(0.1), "params": [0]}]}, buffer)
    with zipfile.ZipFile(odd, "w") as archive:
        for name, data in members(policies["one"]).items():
            archive.writestr(name, buffer.getvalue() if name.endswith("optimizer.pth") else data)

    with pytest.raises(RefusedFileError, match="not plain numbers"):
        library.merge(library.make_recipe([odd, policies["two"]], uniform=True), tmp_path / "soup.zip")
    kept = library.make_recipe([odd, policies["two"]], uniform=True, optimizer_from="odd")
    library.merge(kept, tmp_path / "soup.zip")


@pytest.mark.fault("D12")
def test_a_damaged_archive(policies: dict[str, Path], tmp_path: Path) -> None:
    """A flipped bit in any member is found before anything is written."""
    data = bytearray(policies["one"].read_bytes())
    for place in (data.find(b"data/3") + 200, data.rfind(b"OS: ") + 2):
        data[place] ^= 1
        (tmp_path / "bad.zip").write_bytes(data)
        recipe = library.make_recipe([tmp_path / "bad.zip", policies["two"]], uniform=True)
        with pytest.raises(RefusedFileError) as error:
            library.merge(recipe, tmp_path / "soup.zip")
        data[place] ^= 1

        assert error.value.code == "E0816"
        assert not (tmp_path / "soup.zip").exists()


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 255, 256, 1 << 70, -(1 << 70), 0.1, -0.0, float("inf"), "é", "", (), (1, (2,)), [], [None, [1]], {},
     {"lr": 3e-4, "betas": (0.9, 0.999), "params": [0, 1], "foreach": None, 3: "x"}],
)  # fmt: skip
def test_plain_values_survive(value: object) -> None:
    """torch.load of a plain archive gives the value back, types and all."""
    found = torch.load(io.BytesIO(plain_archive(value, root="archive")), weights_only=True)

    assert found == value
    assert type(found) is type(value)


def test_nothing_but_plain_values() -> None:
    """What is not plain is refused, not turned into something else."""
    with pytest.raises(TypeError, match="is not a plain value"):
        dump({"a": object()})


def test_other_networks_of_the_same_shapes_are_refused(policies: dict[str, Path], tmp_path: Path) -> None:
    """What the settings say of the network counts like a config.json: tanh and ReLU are not averaged."""
    relu = sb3.PPO(
        "MlpPolicy",
        "CartPole-v1",
        seed=0,
        n_steps=32,
        device="cpu",
        policy_kwargs={"activation_fn": torch.nn.ReLU},
    )
    relu.save(tmp_path / "relu.zip")
    recipe = library.make_recipe([policies["one"], tmp_path / "relu.zip"], uniform=True)

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, tmp_path / "soup.zip")

    assert any("policy_kwargs" in problem.what for problem in error.value.details)


def test_another_algorithm_is_said(policies: dict[str, Path], tmp_path: Path) -> None:
    """PPO and A2C policies may be one network; that they are of two algorithms is a note."""
    sb3.A2C("MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={}).save(tmp_path / "a2c.zip")

    result = library.check({"ppo": policies["one"], "a2c": tmp_path / "a2c.zip"}, headers=True)

    assert any("settings_of_the_algorithm" in note for note in result.notes)


def test_a_soup_of_policies_is_published_and_made_again(policies: dict[str, Path], tmp_path: Path) -> None:
    """An archive with its manifest is what a push takes, under a card of its library; its recipe gives it, whatever its name."""
    places = {"one": policies["one"], "two": policies["two"]}
    (tmp_path / "policy").mkdir()
    library.merge(library.make_recipe(places, uniform=True), tmp_path / "policy" / "soup.zip")
    parcel = pack(str(tmp_path / "policy"))
    again = library.recook(tmp_path / "policy", tmp_path / "again.zip", places)

    assert set(parcel.items) == {"soup.zip", "soup.rsoup.json"}
    assert card.split(parcel.card or "")[0]["library_name"] == "stable-baselines3"
    assert Path(again.out).read_bytes() == (tmp_path / "policy" / "soup.zip").read_bytes()
