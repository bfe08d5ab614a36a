"""The config: what is right is read, what is wrong is one clear error before any compute."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
import yaml

from sgm.architectures import ACTIVATIONS, OUTPUTS, TIME_INPUTS
from sgm.gaussian import Gaussian
from sgm.kinetic import KineticProcess
from sgm.objectives import OBJECTIVES, PROBES, WEIGHTS
from sgm.processes import VPProcess
from sgm.registry import HOMES, families
from sgm.run.check import check
from sgm.schedules import BetaSchedule
from sgm.study import Plan, Study, format_number, json_schema
from sgm.study.document import read_config
from sgm.study.families import DIFFERENTIATING, VANISHING, MLPRecipe
from sgm.training import LEARNING_RATES, TIME_SAMPLINGS
from tests.images import with_images

ROOT = Path(__file__).parents[1]
CONFIGS = sorted([ROOT / "config/config.yaml", *(ROOT / "config/studies").glob("*.yaml")])
TINY = yaml.safe_load((ROOT / "tests/data/tiny.yaml").read_text())

DIGITS = {"family": "digits", "heldout_fraction": 0.5, "standardise": True}

BETA = {"family": "beta_a", "beta_min": 0.1, "beta_max": 20.0}
POWER = {"family": "power", "exponent": [1, 2], "beta_min": 0.1, "beta_max": 20.0}


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(TINY) | changes


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """The schema as an editor reads it, found valid once."""
    found = json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_pass_the_model_the_schema_and_the_mathematics(
    path: Path, tmp_path: Path, schema: jsonschema.Draft202012Validator
) -> None:
    config = with_images(read_config(path), tmp_path)
    schema.validate(config)
    check(Study.parse(config))


def test_schema_file_is_the_study_model() -> None:
    stored = json.loads((ROOT / "workflow/schemas/study.schema.json").read_text())
    assert stored == json_schema(), "run `make schema`"


def test_every_built_in_family_can_be_resolved() -> None:
    from sgm.run.build import resolve

    for kind in HOMES:
        for entry in families(kind).values():
            assert callable(resolve(entry.build))
            for beside in filter(None, (entry.exact, entry.objection)):
                assert resolve(entry.address(beside)) is beside


def test_a_study_survives_its_own_dump() -> None:
    study = Study.parse(TINY)
    again = Study.parse(study.model_dump(mode="json"))
    assert again.digest == study.digest
    assert [item.label for item in again.schedules] == ["beta_a=-2", "beta_a=3"]


def test_a_list_on_an_axis_parameter_makes_one_cell_a_value() -> None:
    schedules = [
        {"family": "beta_a", "a": [0, 0.1 + 0.2], "beta_min": 0.1, "beta_max": 20},
        {"family": "beta_a", "name": "steep", "a": 0, "beta_min": 0.1, "beta_max": 40},
        {"family": "constant", "rate": 1},
    ]
    study = Study.parse(changed(schedules=schedules))
    labels = [item.label for item in study.schedules]
    assert labels == ["beta_a=0", "beta_a=0.3", "steep_a=0", "constant"]


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (-0.0, "0"), (0.1 + 0.2, "0.3"), (-10, "-10")]
)
def test_numbers_in_labels_have_one_form(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize("a", [0.1 + 0.2, 0.3, "0.3"])
def test_what_is_computed_is_what_the_label_says(a: Any) -> None:
    study = Study.parse(changed(schedules=[BETA | {"a": a}], horizons=[0.1 + 0.2, 1 / 3]))
    (schedule,) = study.schedules
    assert schedule.parameters.a == float(schedule.label.removeprefix("beta_a=")) == 0.3
    assert schedule.spec["parameters"]["a"] == 0.3
    assert study.horizons == (0.3, 0.333333333333)


def leaves(value: Any, *here: Any) -> Iterator[tuple[Any, ...]]:
    """Keys of every number and word of a config, and the value."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, *here, key)
    else:
        yield *here, value


#: What a leaf of a type may not be.
OTHERS: dict[type, list[Any]] = {
    bool: [1, 0, "yes", "maybe", None],
    str: [True, 7, 0.5],
    int: [True, "x", 1.5, -7, None],
    float: [False, "x", [True], None, 10**400],
    type(None): [True, 3],
}


def broken() -> Iterator[Any]:
    """The tiny study with one leaf of the wrong kind, and the key that is wrong."""
    for *above, last, value in leaves(TINY):
        key = next(step for step in [last, *reversed(above)] if isinstance(step, str))
        for other in OTHERS[float if key == "a" else type(value)]:
            config = holder = copy.deepcopy(TINY)
            for step in above:
                holder = holder[step]
            holder[last] = other
            yield pytest.param(key, config, id=f"{key}={str(other)[:9]}")


BROKEN = list(broken())


def test_the_broken_configs_are_many() -> None:
    assert len(BROKEN) >= 130


@pytest.mark.parametrize(("key", "config"), BROKEN)
def test_a_leaf_of_the_wrong_kind_is_one_line_that_names_it(
    key: str, config: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="the config is not valid") as error:
        Study.parse(config)
    _, line = str(error.value).splitlines()
    assert str(key) in line
    assert len(line) < 400
    assert "should" not in line


BETA = {"family": "beta_a", "a": 0, "beta_min": 0.1, "beta_max": 20}
BAD = [
    (changed(seeds=True), ["seeds = True", "must be a number, not true or false"]),
    (changed(horizons=[True]), ["horizons = True", "must be a number"]),
    (changed(keep_samples=1), ["keep_samples = '1'", "must be true or false"]),
    (changed(schedules=[BETA | {"a": [0, True]}]), ["schedules", "a = True", "a number"]),
    (changed(study="a" * 20), ["study = 'aaa", "20 repetitions"]),
    (changed(schedules=[BETA | {"name": "ab" * 20}]), ["schedules", "20 repetitions"]),
    (changed(n_sample=5), ["n_sample", "unknown key"]),
    (changed(seeds=0), ["seeds = 0: must be greater than or equal to 1"]),
    (changed(score_error_tolerance=0), ["score_error_tolerance = 0: must be greater than 0"]),
    (changed(score_error_tolerance=1), ["score_error_tolerance = 1: must be less than 1"]),
    (changed(score_error_tolerance=True), ["score_error_tolerance = True: must be a number"]),
    (
        changed(score_error_tolerance="1 %"),
        ["score_error_tolerance = '1 %': must be a valid number"],
    ),
    (changed(process={"family": "vp", "variance": -1.0}), ["variance = -1.0", "greater than"]),
    (changed(horizons=[0.0]), ["horizons.0 = 0.0", "greater than"]),
    # absurd magnitudes
    (
        changed(process={"family": "vp", "variance": 1e-300}),
        ["variance = 1e-300", "greater"],
    ),
    (changed(horizons=[1e300]), ["horizons.0 = 1e+300", "1000000000"]),
    (changed(schedules=[BETA | {"beta_max": 1e10}]), ["beta_max = 1", "1000000000"]),
    (changed(n_steps=[10**9]), ["n_steps.0 = 1000000000", "less than"]),
    (changed(seeds=10**7), ["seeds = 10000000", "less than"]),
    (changed(n_samples=10**12), ["n_samples = 1000000000000", "less than"]),
    (changed(n_reference=999), ["n_reference = 999", "greater than or equal to 1000"]),
    (changed(n_reference=True), ["n_reference = True", "must be a number"]),
    (changed(n_reference="many"), ["n_reference", "'many'", "integer"]),
    (
        changed(scores=[TINY["scores"][0] | {"name": "a" * 40}]),
        ["scores", "20 repetitions"],
    ),
    # true is no number
    (changed(seeds=True), ["seeds = True: must be a number"]),
    (changed(horizons=[1, True]), ["horizons = True: must be a number"]),
    (changed(schedules=[BETA | {"beta_max": True}]), ["schedules", "beta_max = True: must be"]),
    (changed(horizons=[1, 1.0]), ["horizons", "1 is given twice"]),
    (changed(horizons=[1, 1 + 1e-14]), ["horizons", "1 is given twice"]),  # one label, one file
    (
        changed(schedules=[BETA | {"name": "A"}, BETA | {"name": "a"}]),
        ["schedules", "'a_a=0' is given twice"],
    ),
    (changed(n_steps=[10, 10]), ["n_steps", "10 is given twice"]),
    (changed(samplers=["euler"]), ["samplers", "'euler'", "unknown sampler", "euler_maruyama"]),
    (changed(schedules=[BETA | {"a": [1, 1.0]}]), ["schedules", "'beta_a=1' is given twice"]),
    (changed(schedules=[BETA | {"beta_min": 0}]), ["schedules", "beta_min = 0", "greater than"]),
    (
        changed(
            divergences=[{"family": "histogram", "coordinate": 0, "bins": 9, "low": 1, "high": 0}]
        ),
        ["divergences", "histogram", "high = 0.0", "must exceed low = 1.0"],
    ),
    (changed(schedules=[BETA | {"betamin": 1}]), ["schedules", "betamin = 1", "unknown key"]),
    (changed(schedules=[BETA | {"a": float("nan")}]), ["schedules", "a = nan", "finite"]),
    (changed(schedules=[]), ["schedules", "at least one"]),
    (changed(schedules=[{"a": 1}]), ["schedules", "family"]),
    (changed(study="../elsewhere"), ["study = '../elsewhere'", "pattern"]),
    (changed(schedules=[BETA | {"name": "a/b"}]), ["schedules", "name = 'a/b'", "pattern"]),
    (changed(targets=[{"family": "digits"}]), ["targets", "heldout_fraction", "required"]),
    (changed(extensions=["nowhere.py"]), ["extensions", "nowhere.py"]),
    (
        changed(scores=[{"family": "exact", "sampled": True, "targets": ["iso"]}]),
        ["scores", "targets = 'iso'", "isotropic"],
    ),
    ({k: v for k, v in TINY.items() if k != "schedules"}, ["schedules", "required"]),
]


@pytest.mark.parametrize(("config", "words"), BAD, ids=lambda value: str(value)[-40:])
def test_bad_configs_name_the_key_the_value_and_what_is_allowed(
    config: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"config is not valid|extensions") as error:
        Study.parse(config)
    for word in words:
        assert word in str(error.value)


MIXER = {
    "architecture": "mixer", "patch": 2, "channels": 16, "token_width": 16, "channel_width": 16,
}  # fmt: skip


def network(**keys: Any) -> dict[str, Any]:
    """The tiny study with other keys in its recipe; None takes one away."""
    config = copy.deepcopy(TINY)
    recipe = config["scores"][-1]["recipe"] | keys
    config["scores"][-1]["recipe"] = {k: v for k, v in recipe.items() if v is not None}
    return config


def test_recipes_are_a_closed_union_of_architectures() -> None:
    def recipe(config: dict[str, Any]) -> dict[str, Any]:
        return Study.parse(config).scores[-1].parameters.recipe.model_dump()

    plain = recipe(network())
    assert plain == network()["scores"][-1]["recipe"] | {
        "architecture": "mlp", "activation": "relu", "time_input": "fraction", "data_std": 1.0,
        "probes": 0, "probe": "rademacher",
    }  # fmt: skip
    assert recipe(network(architecture="mlp")) == plain
    assert recipe(network(**MIXER, width=None))["channels"] == 16
    for config, words in (
        (network(**MIXER), ["mixer.width = 16", "unknown key"]),
        (network(patch=2), ["mlp.patch = 2", "unknown key"]),
        (
            network(**MIXER | {"token_width": 20}, width=None),
            ["token_width = 20", "multiple of 16"],
        ),
        (network(architecture="unet"), ["recipe", "unet", "'mlp', 'mixer', 'module'"]),
        (network(output="denoiser"), ["output = 'denoiser'", "'preconditioned'"]),
        (network(data_std=0), ["data_std = 0", "greater than"]),
    ):
        with pytest.raises(ValueError, match="config is not valid") as error:
            Study.parse(config)
        for word in words:
            assert word in str(error.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"objective": "implicit"}, ["activation = 'relu': must be 'silu' for objective = 'impl"]),
        ({"objective": "sliced", "activation": "silu"}, ["probes = 0: must be at least 1"]),
        ({"objective": "denoising", "probes": 3}, ["probes = 3: must be 0", "'denoising'"]),
        ({"probe": "gaussian"}, ["probe = 'gaussian': needs probes of at least 1"]),
        ({"probe": "uniform"}, ["probe = 'uniform'", "'rademacher'"]),
        ({"weight": "snr"}, ["weight = 'snr'", "'min_snr'"]),
        (
            {"objective": "denoising", "time_sampling": "start", "time_min": 0},
            ["time_min = 0: must be positive for objective = 'denoising'"],
        ),
        (
            {"objective": "explicit", "weight": "min_snr", "time_sampling": "start", "time_min": 0},
            ["weight = 'min_snr': must be 'unit' or 'beta'"],
        ),
    ],
)
def test_a_loss_is_refused_where_its_keys_contradict(
    keys: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError, match="config is not valid") as error:
        Study.parse(network(**keys))
    for word in words:
        assert word in str(error.value)


def test_the_names_that_the_schema_knows_are_those_of_the_mathematics() -> None:
    fields = MLPRecipe.model_fields
    for key, table in {
        "objective": OBJECTIVES, "weight": WEIGHTS, "probe": PROBES, "output": OUTPUTS,
        "time_input": TIME_INPUTS, "time_sampling": TIME_SAMPLINGS, "activation": ACTIVATIONS,
        "learning_rate_schedule": LEARNING_RATES,
    }.items():  # fmt: skip
        assert set(get_args(fields[key].annotation)) == set(table), key
    assert set(DIFFERENTIATING) == {k for k, o in OBJECTIVES.items() if o.differentiates}
    start = np.zeros(1)
    process = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0)
    law = Gaussian.diagonal(start, start + 1)
    own = {"hybrid": KineticProcess(process.schedule)}
    zero = {k for k, w in WEIGHTS.items() if w.value(own.get(k, process), start, law)[0] == 0}
    assert set(VANISHING) == zero


def test_a_network_of_one_time_is_asked_at_that_time_alone() -> None:
    keys = {"objective": "implicit", "activation": "silu", "weight": "unit", "time_min": 0}
    config = network(**keys, time_sampling="start") | {"bounds": []}
    config["samplers"] = [{"family": "langevin", "step_size": 0.01}]
    check(Study.parse(config))
    with pytest.raises(ValueError, match=r"'start': must be in a study without bounds"):
        check(Study.parse(config | {"bounds": ["kl"]}))
    stopped = {"time_grids": [{"family": "uniform", "early_stop": 0.1}]}
    with pytest.raises(
        ValueError, match=r"'start': the sampler asks for t = 0\.1: must ask only for 0"
    ):
        check(Study.parse(config | stopped))
    at = network(**keys | {"time_min": 0.1}, time_sampling="start") | {"bounds": []}
    check(Study.parse(at | stopped | {"samplers": config["samplers"]}))
    with pytest.raises(
        ValueError, match=r"'start': the sampler asks for t = 1: must ask only for 0"
    ):
        check(Study.parse(config | {"samplers": ["exponential_integrator"]}))


def test_networks_are_checked_before_any_job() -> None:
    with pytest.raises(
        ValueError, match=r"scores: trained: target '\w+': image_shape = None: must"
    ):
        check(Study.parse(network(**MIXER, width=None)))
    mixer = network(**MIXER, width=None) | {"targets": [DIGITS], "n_samples": 100}
    mixer["divergences"] = ["gaussian_kl"]
    with pytest.raises(ValueError, match=r"target 'digits': dimension = 61: must be 64"):
        check(Study.parse(mixer))
    arrival = network(output="noise") | {"samplers": ["euler_arrival"]}
    with pytest.raises(
        ValueError, match=r"samplers: euler_arrival: scores: \w+: t = 0\.0: must be"
    ):
        check(Study.parse(arrival))
    check(Study.parse(network(output="noise")))

    geometric = {"family": "geometric", "sigma_min": 0.01, "sigma_max": 50.0}
    exploding = network() | {"process": {"family": "ve"}, "schedules": [geometric], "bounds": []}
    exploding["samplers"] = ["exponential_integrator"]
    with pytest.raises(ValueError, match=r"target '\w+': output = 'relative': must be 'score'"):
        check(Study.parse(exploding))
    exploding["scores"] = network(output="preconditioned")["scores"]
    check(Study.parse(exploding))


def test_explicit_training_needs_an_exact_score() -> None:
    config = changed(targets=[*TINY["targets"], DIGITS])
    config["scores"][-1]["recipe"]["objective"] = "explicit"
    with pytest.raises(ValueError, match=r"'explicit'.*'digits'.*'denoising'"):
        Study.parse(config)
    config["scores"][-1]["recipe"] |= {"objective": "denoising", "weight": "information"}
    with pytest.raises(ValueError, match=r"weight = 'information'.*'digits'.*'beta'"):
        Study.parse(config)


def test_mathematics_refuses_what_the_schema_can_not_see(tmp_path: Path) -> None:
    literal = {"family": "correlated", "dimension": 50, "mean": 1.0, "offset": 0.0}
    with pytest.raises(ValueError, match=r"targets: correlated: offset = 0.*indefinite"):
        check(Study.parse(changed(targets=[literal], scores=[TINY["scores"][0]])))

    np.savez(tmp_path / "bad.npz", mean=np.zeros(2), covariance=np.array([[1.0, 2.0], [2.0, 1.0]]))
    bad = {"family": "gaussian_file", "path": str(tmp_path / "bad.npz")}
    with pytest.raises(ValueError, match=r"targets: gaussian_file: .*not positive definite"):
        check(Study.parse(changed(targets=[bad], scores=[TINY["scores"][0]])))

    with pytest.raises(ValueError, match=r"n_samples = 60: .*digits.*d = 61"):
        check(Study.parse(changed(n_samples=60, targets=[DIGITS])))

    clipped = {"family": "cosine", "offset": 0.1, "clip": 0.01}
    with pytest.raises(ValueError, match=r"schedules: cosine: clip = 0.01"):
        check(Study.parse(changed(schedules=[clipped])))

    falling = BETA | {"beta_max": 0.01}
    with pytest.raises(ValueError, match=r"schedules: beta_a=.*: beta_max = 0.01: .* at least"):
        check(Study.parse(changed(schedules=[falling])))


def trained(**keys: Any) -> list[dict[str, Any]]:
    score = next(score for score in TINY["scores"] if score["family"] == "trained")
    return [score | {"recipe": score["recipe"] | keys}]


ONE = {"family": "exact", "sampled": False, "targets": ["isotropic"]}
LIKELIHOOD = {
    "rows": 10, "nodes": 4, "cutoff": 1e-4, "divergence": "exact", "directions": 1,
    "method": "RK45", "rtol": 1e-3, "atol": 1e-3, "atol_nats": 1e-2,
}  # fmt: skip
HISTOGRAM = {"family": "histogram", "bins": 10, "low": -1.0, "high": 1.0}
PICTURES = {"schedules": ["beta_a=3"], "rows": 4, "times": [0, 1]}
FUNNEL = {"family": "funnel", "dimension": 3, "spread": 1.0, "slope": 0.5}
TOGETHER = {
    "a target without a score": (
        {"scores": [ONE], "targets": [*TINY["targets"], DIGITS]},
        "targets: 'digits' has no score: must be meant for one of exact",
    ),
    "networks asked where they are not trained": (
        {"scores": trained(time_min=0.5), "n_steps": [5, 100]},
        "scores: trained.*: time_min = 0.5: must be at most 0.05, 5 times the sampler's smallest",
    ),
    "likelihoods too": (
        {"scores": trained(time_min=1e-2), "likelihood": LIKELIHOOD},
        "time_min = 0.01: must be at most 0.0005, 5 times the likelihood's cutoff",
    ),
    "a histogram of a coordinate that is not there": (
        {"divergences": [HISTOGRAM | {"coordinate": 3}]},
        "divergences: coordinate = 3 of 'histogram': must be below 3, the dimension of target 'iso",
    ),
    "a histogram whose law has no marginal": (
        {"divergences": [HISTOGRAM | {"coordinate": 1}], "targets": [FUNNEL], "bounds": []},
        r"divergences: histogram: coordinates = \[1\]: must start with 0 for a funnel",
    ),
    "too short a reference run": (
        {"n_reference": 1000, "targets": [FUNNEL | {"dimension": 600}]},
        r"n_reference = 1000: must be at least 2 \(d \+ 3\) = 1206 .* of target 'funnel'",
    ),
    "a reference run that fills the memory": (
        {"n_reference": 10**7, "targets": [FUNNEL | {"dimension": 900}]},
        r"n_reference = 10000000: must be .* at most 9544371, which is 64 GiB",
    ),
    "pictures of a coordinate of no target": (
        {"pictures": PICTURES | {"coordinates": [0, 3]}, "targets": [*TINY["targets"], DIGITS]},
        r"pictures: coordinates = \[0, 3\]: must be below 3, the largest dimension of a target",
    ),
    "pictures of a coordinate twice": (
        {"pictures": PICTURES | {"coordinates": [1, 1]}},
        r"pictures.coordinates: \[1, 1\]: must be distinct",
    ),
    "too few nodes for the likelihood of a network": (
        {"scores": trained(time_min=1e-5), "likelihood": LIKELIHOOD},
        "likelihood: beta_a=-2: n_nodes = 4: must be larger: over",
    ),
    "a grid larger than memory": (
        {"seeds": 10**5, "n_steps": list(range(1, 200))},
        "seeds = 100000: the study has .* runs, all axes multiplied: must be at most 1e.07",
    ),
    "a job larger than memory": (
        {"n_samples": 10**8, "seeds": 100, "seeds_per_job": 100},
        "n_samples = 100000000, .*: a job would hold .* GiB of target 'isotropic'",
    ),
}


@pytest.mark.parametrize(("changes", "message"), TOGETHER.values(), ids=TOGETHER)
def test_settings_that_are_senseless_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(Study.parse(changed(**changes)))


def test_scores_sizes_and_suprema_are_checked_too(tmp_path: Path) -> None:
    plugin = {"family": "plugin", "eps": -2.0, "sampled": True}
    with pytest.raises(ValueError, match=r"scores: plugin_eps=-2: eps = -2.0"):
        check(Study.parse(changed(scores=[plugin])))

    nll = {"family": "heldout_nll", "components": 1000, "regularisation": 0.1}
    config = changed(targets=[DIGITS], divergences=[nll], n_train=400, n_samples=400)
    with pytest.raises(ValueError, match=r"components = 1000 .*at most 100"):
        check(Study.parse(config))

    extension = tmp_path / "falling.py"
    extension.write_text(
        "import numpy as np\n"
        "from dataclasses import dataclass\n"
        "from sgm.schedules import NoiseSchedule\n"
        "from sgm.study import register\n\n"
        "class Falling(NoiseSchedule):\n"
        "    def beta(self, t):\n        return 2.0 - np.asarray(t)\n"
        "    def integral(self, t):\n        return 2 * np.asarray(t) - np.asarray(t) ** 2 / 2\n\n"
        "@register('schedule')\n"
        "def falling(horizon):\n    return Falling(horizon)\n"
    )
    config = changed(schedules=["falling"], extensions=[str(extension)])
    with pytest.raises(ValueError, match=r"schedules: falling: supremum = 1.0: .*at least 2"):
        check(Study.parse(config))


def test_a_step_too_long_for_a_simulation_is_refused_before_any_job() -> None:
    long = {"process": {"family": "vp", "variance": 0.2}, "n_steps": [1], "samplers": ["ancestral"]}
    message = "samplers: ancestral: times: a step multiplies rounding errors of the score"
    with pytest.raises(ValueError, match=message):
        check(Study.parse(changed(**long)))
    check(Study.parse(changed(**long | {"n_steps": [20]})))


@pytest.mark.parametrize(
    ("schedules", "divergences", "compared", "mapped"),
    [
        ([BETA | {"a": [0, 3]}], ["gaussian_kl"], True, True),
        ([BETA | {"a": [2, 3]}], ["gaussian_kl"], False, True),
        ([BETA | {"a": 2}, POWER], ["gaussian_kl"], True, False),
        ([POWER], ["gaussian_kl"], False, False),  # a family of the user's
        ([BETA | {"a": [0, 3]}], ["nll"], False, True),  # of which less is not better
    ],
)
def test_a_comparison_is_drawn_where_there_is_something_to_compare(
    schedules: Any, divergences: Any, compared: bool, mapped: bool
) -> None:
    config = changed(
        schedules=schedules, divergences=divergences, horizons=[0.5, 1.0],
        extensions=[str(ROOT / "tests/data/extension.py")],
    )  # fmt: skip
    stems = Plan(Study.parse(config), Path("results/tiny")).figures()
    assert ("comparison/isotropic" in stems) == compared
    assert ("map/isotropic" in stems) == mapped
