"""Modules of a user's as networks: trained as ours are, or finished elsewhere."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from sgm import scores
from sgm.architectures import MLP, Module, ModuleFile, build_architecture
from sgm.evaluation import score_error_moments
from sgm.gather import gather
from sgm.gaussian import Gaussian
from sgm.networks import ScoreEnsemble, finished, require_module
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.check import check, read_study
from sgm.schedules import BetaSchedule, ConstantSchedule, CosineSchedule, GeometricSchedule
from sgm.store import DONE
from sgm.study import Plan, Study
from sgm.study.document import read_config
from sgm.training import Recipe, train_networks
from tests.data.modules import Convolution, Exact
from tests.workflow import ROOT, run_jobs, tiny

FILE = "tests/data/modules.py"
VP = VPProcess(BetaSchedule(1.0, 1.0, 0.1, 20.0), 1.5)
WIDTHS = {"width": 32, "layers": 2, "time_width": 16}
COMMON = {"time_scale": 10.0, "time_input": "log_noise", "output": "preconditioned"}
OURS = {"architecture": "mlp", **WIDTHS, **COMMON}
THEIRS = {"architecture": "module", "builder": f"{FILE}:mlp", "options": WIDTHS, **COMMON}
TRAINING: dict[str, Any] = {
    "objective": "denoising", "weight": "variance", "batch_size": 32, "steps": 40,
    "learning_rate": 0.002, "learning_rate_schedule": "cosine", "ema": 0.9,
    "time_sampling": "early", "time_min": 1e-4,
}  # fmt: skip


def states(n: int, d: int, replicates: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((replicates, n, d), generator=generator)
    return x, 0.01 + 0.98 * torch.rand((replicates, n), generator=generator)


def pair(dimension: int = 5) -> list[ScoreEnsemble]:
    return [
        ScoreEnsemble.initial(build_architecture(keys, dimension, None), [3, 4]).bind(VP)
        for keys in (OURS, THEIRS)
    ]


def test_our_mlp_as_a_module_is_our_mlp() -> None:
    """The same first weights of a seed, scores at many times and at one, and gradients."""
    ours, theirs = pair()
    assert isinstance(ours.architecture, MLP)
    assert isinstance(theirs.architecture, Module)
    for name, w in ours.state_dict().items():
        torch.testing.assert_close(theirs.weights[f"weights.{name}"], w, rtol=0, atol=0)
    assert theirs.architecture.fixed == {"frequencies"}
    x, t = states(7, 5)
    for own in (ours, theirs):
        for w in own.weights.values():
            w.requires_grad_()
        torch.autograd.backward(own(x, t).square().sum())
    torch.testing.assert_close(theirs(x, t), ours(x, t), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x, 0.3), ours(x, 0.3), rtol=1e-5, atol=1e-5)
    gradient, expected = theirs.weights["weights.layer_1"].grad, ours.weights["layer_1"].grad
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)
    double = theirs.to(dtype=torch.float64)
    torch.testing.assert_close(double(x.double(), t).float(), ours(x, t), rtol=1e-4, atol=1e-4)
    coarse = theirs.for_sampling("bfloat16")(x, t)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, ours(x, t), rtol=0.05, atol=0.05)
    assert not torch.equal(coarse, theirs(x, t))


def test_it_learns_as_ours_does_whatever_is_beside_it(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(2, 100, 5)) * 0.7

    def train(keys: dict[str, Any], first: int = 0) -> Any:
        recipe = Recipe.from_keys(keys | TRAINING)
        return train_networks(recipe, VP, rows[first:], None, 0, [3, 4][first:], {}, "cpu")

    ours, theirs, alone = train(OURS), train(THEIRS), train(THEIRS, 1)
    np.testing.assert_allclose(theirs.loss_history, ours.loss_history, rtol=1e-3)
    x, t = states(50, 5)
    own, other = (result.networks.bind(VP)(x, t) for result in (ours, theirs))
    torch.testing.assert_close(other, own, rtol=1e-2, atol=1e-2)
    assert (own - pair()[0](x, t)).abs().max() > 0.1  # it has learnt something
    for name, w in theirs.networks.weights.items():
        assert torch.equal(w[1:], alone.networks.weights[name]), name
    assert torch.equal(other[1:], alone.networks.bind(VP)(x[1:], t[1:]))
    frequencies = theirs.networks.weights["frequencies"]
    torch.testing.assert_close(frequencies, pair()[1].weights["frequencies"])
    theirs.networks.save(tmp_path / "n")
    back = ScoreEnsemble.load(tmp_path / "n", f"{FILE}:mlp")
    assert torch.equal(back.bind(VP)(x, t), other)
    for builder in (None, "other.py:mlp"):
        with pytest.raises(ValueError, match=r"its builder is 'tests/data/modules.py:mlp': must"):
            ScoreEnsemble.load(tmp_path / "n", builder)


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    pair()
    require_module(build_architecture(THEIRS, 5, None), VP)
    assert torch.equal(torch.rand(3), expected)


def test_images_come_with_their_colours() -> None:
    keys = THEIRS | {
        "builder": f"{FILE}:convolution", "options": {"channels": 4}, "images": True,
    }  # fmt: skip
    for shape in ((4, 6), (3, 4, 6)):
        architecture = build_architecture(keys, int(np.prod(shape)), shape)
        require_module(architecture, VP, in_float64=True)
        network = ScoreEnsemble.initial(architecture, [0]).bind(VP)
        assert network.weights["inward.weight"].shape == (1, 4, (1, *shape)[-3], 3, 3)
        x, _ = states(5, int(np.prod(shape)), 1)
        plain = Convolution((1, *shape)[-3:], 4)
        plain.load_state_dict({name: w[0] for name, w in network.weights.items()})
        v, m = VP.kernel_variance(0.3), VP.mean_scale(0.3)
        tau = torch.full((5,), 10 * np.log(np.sqrt(v) / m) / 4, dtype=torch.float32)
        y = (x[0] / np.sqrt(v + m**2)).reshape(5, *(1, *shape)[-3:])  # data_std is 1
        expected = -x[0] / (v + m**2) + m / np.sqrt(v * (v + m**2)) * plain(y, tau).flatten(1)
        torch.testing.assert_close(network(x, 0.3)[0], expected.float(), rtol=1e-4, atol=1e-5)
    for bad in (None, (4, 5)):
        with pytest.raises(ValueError, match=r"images = True: must be left out for a target of d"):
            build_architecture(keys, 24, bad)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dropout", r"'part' is a dropout of p = 0.1: must be 0"),
        ("batch norm", r"'part' is a batch norm, which makes rows depend on each other"),
        ("numpy", r"must draw its weights from torch's own generator alone"),
        ("frozen", r"must have parameters that can be trained"),
        ("shape", r"must return a tensor of the shape of its first argument, \(3, 4\), not \(3, 1"),
        ("tuple", r"must return a tensor of the shape of its first argument, \(3, 4\), not tuple"),
        ("batch", r"must treat each row by itself"),
        ("noise", r"must return the same numbers for the same rows"),
        ("nan", r"must return finite numbers for finite rows"),
        ("float32", r"must run on rows in torch.float64: RuntimeError: "),
        ("raises", r"must build a torch.nn.Module; RuntimeError: no such thing"),
        ("no module", r"must build a torch.nn.Module, not a int"),
    ],
)
def test_a_module_that_does_not_keep_its_promise_is_refused(kind: str, message: str) -> None:
    keys = THEIRS | {"builder": f"{FILE}:wrong", "options": {"kind": kind}}
    said = r"^builder = 'tests/data/modules.py:wrong'.*"
    with pytest.raises(ValueError, match=said + message):
        require_module(build_architecture(keys, 4, None), VP, in_float64=True)
    require_module(
        build_architecture(keys | {"options": {"kind": "fine"}}, 4, None), VP, in_float64=True
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"builder": "nowhere.py:mlp"}, r"nowhere.py' is not a file of Python"),
        ({"builder": f"{FILE}:nothing"}, r"AttributeError: .*nothing"),
        ({"builder": "torch.nn:Nothing"}, r"AttributeError: .*Nothing"),
        ({"builder": "no_such_package:f"}, r"ModuleNotFoundError: .*no_such_package"),
        ({"options": {"depth": 3}}, r"TypeError: .*depth"),
        ({"builder": "mlp"}, r"builder = 'mlp': must be file.py:name or package.module:name"),
    ],
)
def test_a_builder_that_can_not_be_called_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_module(build_architecture(THEIRS | changes, 4, None), VP)


# --- finished models -----------------------------------------------------------------

LAW = Gaussian.diagonal(np.ones(3), np.full(3, 0.4))
DISCRETE = {"kind": "discrete", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
            "curve": "linear"}  # fmt: skip
CONTINUOUS = {"kind": "continuous", "beta_min": 0.1, "beta_max": 20.0, "scale": 999.0}
SIGMA = {"kind": "sigma", "input": "sigma"}
LOG_SIGMA = {"kind": "sigma", "input": "log_sigma"}
OWN = {"kind": "process", "input": "fraction", "scale": 1.0}
PROCESSES: dict[str, Process] = {
    "VP": VPProcess(BetaSchedule(1.0, 3.0, 0.1, 16.0), 1.0),
    "cosine, another variance": VPProcess(CosineSchedule(2.0, 2.5, 0.008, 20.0), 2.5),
    "VE": VEProcess(GeometricSchedule(1.0, 0.02, 20.0)),
}


def finished_file(folder: Path, predicts: str, levels: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a perfect model of LAW, its weights written."""
    options = {"variance": 0.4, "predicts": predicts, "levels": levels, "data_std": 0.8}
    save_file(Exact(3, **options).state_dict(), folder / "m.safetensors")
    return {
        "path": str(folder / "m.safetensors"), "builder": f"{FILE}:exact", "options": options,
        "predicts": predicts, "levels": levels, "data_std": 0.8,
    }  # fmt: skip


@pytest.mark.parametrize("place", PROCESSES)
@pytest.mark.parametrize(
    ("predicts", "levels"),
    [
        *((p, d) for d in (DISCRETE, CONTINUOUS) for p in ("score", "noise", "data", "velocity")),
        *((p, SIGMA) for p in ("score", "noise", "data")),
        ("edm", LOG_SIGMA), ("edm", SIGMA),
    ],
)  # fmt: skip
def test_an_exact_model_is_the_exact_score_of_any_process(
    tmp_path: Path, place: str, predicts: str, levels: dict[str, Any]
) -> None:
    """Whatever it predicts and however it is told the noise, against the closed form."""
    process = PROCESSES[place]
    network = finished(**finished_file(tmp_path, predicts, levels), dimension=3, image_shape=None)
    network = network.to(dtype=torch.float64).repeated(2).bind(process)
    exact = scores.exact(process, LAW)
    x, _ = states(20, 3)
    for fraction in (0.05, 0.1, 0.5, 1.0):
        t = fraction * process.horizon
        rows = x.double().numpy() * np.sqrt(process.noise_variance(t))
        found = network(torch.as_tensor(rows), t).numpy()
        expected = np.stack([exact(own, t) for own in rows])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("predicts", ["score", "noise", "data", "velocity"])
def test_a_model_of_the_process_itself(tmp_path: Path, predicts: str) -> None:
    process = VPProcess(ConstantSchedule(1.0, 8.0), 1.0)
    network = finished(**finished_file(tmp_path, predicts, OWN), dimension=3, image_shape=None)
    moments = score_error_moments(
        network.bind(process), process, LAW, [1.0, 0.5, 0.1], 50, 0, [0], {}, torch.float32,
        torch.device("cpu"),
    )  # fmt: skip
    assert np.all(moments.mse < 1e-8 / process.kernel_variance([1.0, 0.5, 0.1]) ** 2)


def test_levels_that_the_model_does_not_know_are_refused(tmp_path: Path) -> None:
    keys = {"architecture": "module_file", **finished_file(tmp_path, "noise", DISCRETE)}
    del keys["path"]
    architecture = build_architecture(keys, 3, None)
    assert isinstance(architecture, ModuleFile)
    process = PROCESSES["VP"]
    message = r"noise levels √v/m from {}: must lie between 0.01 and 157.4, those of the model"
    with pytest.raises(ValueError, match=message.format(r"0.001 to 0.001")):
        architecture.require(process, 1e-5)
    noisier = VEProcess(GeometricSchedule(1.0, 0.01, 500.0))
    with pytest.raises(ValueError, match=message.format(r"500 to 500")):
        architecture.require(noisier, 1.0)
    with pytest.raises(ValueError, match=r"t = 0.0: must be positive"):
        architecture.require(process, 0.0)
    continuous = replace(architecture, levels=CONTINUOUS)
    continuous.require(process, 1e-9)
    with pytest.raises(ValueError, match=r"must lie between 0 and 152.2"):
        continuous.require(noisier, 1.0)
    # far beyond float32's range of m
    long = VPProcess(ConstantSchedule(1.0, 3000.0), 1.0)
    with pytest.raises(ValueError, match=r"noise levels √v/m from inf"):
        continuous.require(long, 1.0)


def test_files_that_are_no_weights_of_the_module_are_refused(tmp_path: Path) -> None:
    keys = finished_file(tmp_path, "noise", DISCRETE)
    state = Exact(3, **keys["options"]).state_dict()

    def refuse(message: str, path: str = "m.pt") -> None:
        with pytest.raises(ValueError, match=message) as caught:
            finished(**keys | {"path": str(tmp_path / path)}, dimension=3, image_shape=None)
        assert str(caught.value).startswith(f"path = {str(tmp_path / path)!r}: ")
        assert "\n" not in str(caught.value)

    torch.save(state, tmp_path / "m.pt")
    finished(**keys | {"path": str(tmp_path / "m.pt")}, dimension=3, image_shape=None)
    for name, wrong, message in (
        ("missing", {}, r"must be those of builder = .*Missing key\(s\) in state_dict: \"mean\""),
        ("more", state | {"more": torch.ones(2)}, r"Unexpected key\(s\) in state_dict: \"more\""),
        ("shape", {"mean": torch.ones(4)}, r"size mismatch for mean: .*\[4\]"),
        ("nan", {"mean": torch.tensor([1.0, np.nan, 1.0])}, r"'mean' must be finite"),
        ("nested", {"state_dict": state}, r"must hold a state_dict.* it holds \['state_dict'\]"),
        ("module", torch.nn.Linear(2, 2), r"what else may execute code is not read"),
    ):
        torch.save(wrong, tmp_path / f"{name}.pt")
        refuse(message, f"{name}.pt")

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    refuse(r"what else may execute code is not read", "evil.pt")
    torch.save({"mean": Evil()}, tmp_path / "evil.pt")
    refuse(r"what else may execute code is not read", "evil.pt")
    assert not (tmp_path / "executed").exists()
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    refuse(r"must be a .safetensors file", "broken.safetensors")
    refuse(r"must be a file of weights; there is none", "nothing.pt")


# --- studies -------------------------------------------------------------------------


def module_study(folder: Path, **changes: Any) -> dict[str, Any]:
    """The tiny study on one Gaussian, with a module and a finished exact model beside ours."""
    config = tiny(**changes)
    (trained,) = (score for score in config["scores"] if score["family"] == "trained")
    widths = {key: trained["recipe"][key] for key in ("width", "layers", "time_width")}
    recipe = {key: value for key, value in trained["recipe"].items() if key not in widths}
    theirs = recipe | {
        "architecture": "module", "builder": f"{FILE}:mlp", "options": widths,
    }  # fmt: skip
    keys = finished_file(folder, "noise", CONTINUOUS)
    d = 3
    config["schedules"] = [{"family": "beta_a", "a": [-2, 0], "beta_min": 0.1, "beta_max": 9.0}]
    config["targets"] = [
        {"family": "isotropic", "dimension": d, "mean": 1.0, "variance": 0.4},
    ]
    common = {"targets": ["isotropic"]}
    config["scores"] = [
        {"family": "exact", "sampled": True, **common},
        {**trained, **common},
        {"family": "trained", "name": "module", "recipe": theirs, **common},
        {"family": "module_file", "name": "finished", **keys, **common},
    ]
    return config | {"extensions": [FILE], "pictures": None}


LIKELIHOOD = {
    "rows": 20, "nodes": 8, "cutoff": 0.01, "divergence": "exact", "directions": 1,
    "method": "RK45", "rtol": 1e-5, "atol": 1e-5, "atol_nats": 1e-3,
}  # fmt: skip


def test_from_the_config_to_the_grid(tmp_path: Path) -> None:
    """A module is trained, and a finished exact model has the exact law's errors."""
    config = module_study(tmp_path, likelihood=LIKELIHOOD)
    study = Study.parse(config)
    check(study)
    plan = Plan(study, tmp_path / "results")
    run_jobs(plan)
    grid = gather(plan, {})
    assert (grid.status.sel(target="isotropic") == DONE).all(), grid.attrs["failures"]
    ours, theirs, model, exact = (
        grid.sel(score=name, target="isotropic")
        for name in ("trained", "module", "finished", "exact")
    )
    np.testing.assert_allclose(theirs.train_loss, ours.train_loss, rtol=1e-3)
    for variable in ("kl_plugin", "kl_bound", "flow_log_likelihood", "denoising_elbo"):
        np.testing.assert_allclose(theirs[variable], ours[variable], rtol=2e-2, err_msg=variable)
    # of the finished model, in float32, beside exact laws
    floor = 1e-4 * float(exact.kl_exact.max())
    np.testing.assert_allclose(model.kl_coupled, exact.kl_exact + 0 * model.kl_coupled, atol=1e-3)
    np.testing.assert_allclose(model.kl_plugin, exact.kl_plugin, rtol=1e-3, atol=floor)
    np.testing.assert_allclose(model.kl_bound, exact.kl_bound + 0 * model.kl_bound, rtol=1e-3)
    np.testing.assert_allclose(model.flow_log_likelihood, exact.flow_log_likelihood, atol=2e-3)
    assert np.isnan(model.train_loss).all()
    assert not list((tmp_path / "results/networks").rglob("finished"))


def spec_of(config: dict[str, Any], kind: str, score: str) -> str:
    plan = Plan(Study.parse(config), Path("results/none"))
    cells = (labels for labels in plan.cells(kind) if labels["score"] == score)
    return plan.spec_of(kind, next(cells))


def test_what_a_user_writes_is_in_the_spec(tmp_path: Path, monkeypatch: Any) -> None:
    """An edit of the builder's file, other weights, or a file among the options run jobs again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests/data").mkdir(parents=True)
    file = tmp_path / FILE
    text = (ROOT / FILE).read_text()
    file.write_text(text)
    (tmp_path / "statistics.npy").write_text("1")
    config = module_study(tmp_path, likelihood=LIKELIHOOD)
    config["scores"][-1]["path"] = "m.safetensors"
    config["scores"][2]["recipe"]["options"]["file"] = "statistics.npy"

    def specs() -> dict[tuple[str, str], str]:
        kinds = {
            "trained": ("network", "samples"),
            "module": ("network", "bounds", "samples"),
            "finished": ("samples", "bounds", "likelihood"),
        }
        return {
            (kind, score): spec_of(config, kind, score)
            for score, own in kinds.items()
            for kind in own
        }

    first = specs()
    assert specs() == first

    def changed() -> set[str]:
        now = specs()
        found = {score: {now[k] != first[k] for k in now if k[1] == score} for _, score in now}
        assert all(len(values) == 1 for values in found.values()), found
        return {score for score, values in found.items() if values == {True}}

    file.write_text(text.replace("torch.relu(h @", "torch.tanh(h @"))
    assert changed() == {"module", "finished"}
    file.write_text(text + "\n# a comment\n")
    assert changed() == set()
    (tmp_path / "statistics.npy").write_text("2")
    assert changed() == {"module"}
    (tmp_path / "statistics.npy").write_text("1")
    options = config["scores"][-1]["options"]
    save_file({"mean": torch.zeros(3)}, tmp_path / "m.safetensors")
    assert changed() == {"finished"}
    save_file(Exact(3, **options).state_dict(), tmp_path / "m.safetensors")
    assert changed() == set()


@pytest.mark.parametrize(
    ("score", "changes", "message"),
    [
        (2, {"builder": "other.py:mlp"}, r"its file must be one of `extensions`, which are tests/"),
        (2, {"builder": "mlp"}, r"builder = 'mlp': must be file.py:name or package.module:name"),
        (2, {"width": 16}, r"width.*: unknown key"),
        (2, {"images": True}, r"images = True: must be left out for a target of dimension 3"),
        (2, {"options": {"depth": 1}}, r"scores: module: target 'isotropic': .*TypeError: .*depth"),
        (3, {"path": "nothing.pt"}, r"path = 'nothing.pt': must be a file of weights; there is"),
        (3, {"predicts": "mean"}, r"predicts = 'mean': "),
        (3, {"levels": {"kind": "discrete", "beta_end": 2}}, r"beta_end = 2: "),
        (3, {"levels": {"kind": "time"}}, r"levels.*: "),
        (3, {"levels": {"kind": "discrete", "beta_end": 1e-4}}, r"must lie between 0.01 and 0.3"),
        (3, {"data_std": 0}, r"data_std = 0: "),
    ],
)
def test_a_study_is_refused_before_any_job(
    tmp_path: Path, score: int, changes: dict[str, Any], message: str
) -> None:
    config = module_study(tmp_path)
    own = config["scores"][score]
    own.get("recipe", own).update(changes)
    with pytest.raises(ValueError, match=message):
        check(Study.parse(config))


def test_a_builder_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    config = module_study(tmp_path) | {"extensions": []}
    for score in config["scores"][2:]:
        score.get("recipe", score)["builder"] = "os:getcwd"
        text = yaml.safe_dump(config | {"scores": [config["scores"][0], score]})
        (tmp_path / "study.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"builder = 'os:getcwd': executes code; read it befo"):
            read_study(tmp_path / "study.yaml")
        with pytest.raises(ValueError, match=r"must build a torch.nn.Module"):
            read_study(tmp_path / "study.yaml", trust=True)


def test_a_librarys_u_net_learns_digits(tmp_path: Path) -> None:
    """The study of docs/examples, its training cut short; both networks learn something."""
    pytest.importorskip("azula")
    config = read_config(ROOT / "docs/examples/unet-digits.yaml")
    for score in config["scores"]:
        score["recipe"] |= {"steps": 60}
    small = {"n_steps": [5], "n_train": 1000, "n_samples": 80, "divergences": ["gaussian_kl"]}
    study = Study.parse(config | small)
    check(study)
    plan = Plan(study, tmp_path / "results")
    run_jobs(plan)
    grid = gather(plan, {})
    assert (grid.status == DONE).all()
    assert (grid.train_loss < 64).all()  # that of a network that predicts no noise
    model = ScoreEnsemble.load(Path(plan.files("network")[0]), "docs/examples/unet.py:unet")
    assert model.architecture.fixed == {"frequencies"}
    assert model.weights["unet.descent.0.0.weight"].shape == (1, 16, 1, 3, 3)
