"""What a study file says, what is refused, and which jobs come of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_studies import JOBS, write_small_study

import rram_hil
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.recipe import load_recipe
from rram_hil.errors import ConfigError
from rram_hil.plugins import entries, names
from rram_hil.studies.arm import GROUP, Arm, ArmChoice, Case
from rram_hil.studies.devices import DEVICES, Noise
from rram_hil.studies.jobs import RunArm, Train
from rram_hil.studies.models import MODELS, Images, Pictures
from rram_hil.studies.paper import ARMS, paper_study
from rram_hil.studies.plan import Planned, plan
from rram_hil.studies.study_file import Study, load_study, parse_study
from rram_hil.studies.training import Places, Training

SMALL: dict[str, Any] = {
    "model": "digits",
    "devices": ["A"],
    "arm": [{"name": "float", "arm": "float"}, {"name": "RSA", "arm": "random-words"}],
}


def pictures(count: int = 4, value: int = 0) -> Pictures:
    return Pictures(np.full((count, 1, 8, 8), value, np.uint8), np.zeros(count, np.int64))


def images(value: int = 0) -> Images:
    return Images(pictures(4), pictures(2), pictures(3, value))


def planned(tables: dict[str, Any], value: int = 0) -> Planned:
    return plan(parse_study(tables, "here"), images(value))


def keys(jobs: Planned, kind: str) -> set[str]:
    return {job.key for job in jobs.jobs if job.kind == kind}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "digit"}, "model: 'digit' is unknown.*did you mean digits"),
        ({"devices": ["Z"]}, "devices: 'Z' is unknown; there is: A, "),
        ({"devices": ["A", "A"]}, "devices: 'A' stands there more than once"),
        ({"chip": 3}, "chip: unknown key; did you mean chips"),
        ({"arm": []}, "arm: .* is wrong"),
    ],
)
def test_what_a_study_cannot_be_is_refused_in_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        parse_study(SMALL | changes, "mine.toml")
    assert str(refused.value).startswith("mine.toml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('arm = "random-words"\nfractions = 0.1', "arm 'a' (random-words): fractions: unknown key"),
        ('arm = "random-word"', "arm 'random-word' is unknown"),
        ('arm = "./none.py:None"', "there is no file"),
    ],
)
def test_a_wrong_arm_is_refused_with_the_file_that_it_stands_in(
    tmp_path: Path, keys: str, told: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'model = "digits"\ndevices = ["A"]\n[[arm]]\nname = "a"\n{keys}\n')
    with pytest.raises(ConfigError) as refused:
        load_study(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert told in str(refused.value)
    assert str(refused.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ({"arm": "rsa"}, "arm 'rsa' is unknown; there is: .*random-words"),
        ({"arm": "random-words", "fractions": 0.1}, r"\(random-words\).*did you mean fraction"),
        ({"arm": "random-words", "places_known": True}, "the teacher knows no places"),
        (
            {"arm": "small-layers", "places_known": True, "teaching": "teacher"},
            "the teacher knows no places",
        ),
        ({"arm": "./none.py:Mine"}, "there is no file"),
    ],
)
def test_what_an_arm_cannot_be_is_refused_in_one_line(arm: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        planned(SMALL | {"arm": [arm | {"name": "mine"}]})


def test_an_arm_without_a_student_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from rram_hil.studies.arm import Arm\n"
        "class Mine(Arm):\n"
        "    def networks(self, case): return {'net': case.teacher}\n"
        "    def steps(self, case): return []\n"
    )
    study = parse_study(SMALL | {"arm": [{"name": "m", "arm": "./mine.py:Mine"}]}, "here")
    with pytest.raises(ConfigError, match=r"arm 'm': its networks are net; one must be"):
        plan(study, images(), tmp_path)


def test_each_network_is_trained_and_each_chip_formed_once(tmp_path: Path) -> None:
    study = load_study(write_small_study(tmp_path))
    found = plan(study, images(), tmp_path)
    assert len(found.jobs) == JOBS
    assert {kind: len(keys(found, kind)) for kind in ("training", "forming")} == {
        "training": 1,
        "forming": 2,
    }
    before: set[str] = set()
    for job in found.jobs:
        assert {needed.key for needed in job.needs.values()} <= before, "needs come before"
        before.add(job.key)


@pytest.mark.long
def test_a_job_is_named_by_what_determines_it_and_not_by_its_row() -> None:
    first, named = planned(SMALL), [{"name": "other", "arm": "random-words"}]
    assert keys(planned(SMALL | {"arm": named}), "arm") <= keys(first, "arm")
    assert keys(planned(SMALL | {"chips": 2}), "forming") <= keys(first, "forming")
    more = [{"name": "RSA", "arm": "random-words", "fraction": 0.2}]
    assert not keys(planned(SMALL | {"arm": more}), "arm") & keys(first, "arm")
    assert not keys(planned(SMALL, value=1), "training") & keys(first, "training")
    assert keys(planned(SMALL, value=1), "forming") == keys(first, "forming")
    hfo2 = planned(SMALL | {"devices": ["hfo2"]})
    assert keys(hfo2, "training") == keys(first, "training"), "one teacher for all devices"
    assert not keys(hfo2, "forming") & keys(first, "forming")


def test_a_device_of_the_file_comes_with_its_model(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/studies.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[device]]" in b]
    tables = SMALL | tomllib.loads(block) | {"devices": ["mine"]}
    study = parse_study(tables, "here")
    with pytest.raises(ConfigError, match=r"device 'mine': model: .*wafer\.toml cannot be read"):
        plan(study, images(), tmp_path)
    forming = []
    for content in ("one", "another"):
        (tmp_path / "wafer.toml").write_text(content)
        forming.append(keys(plan(study, images(), tmp_path), "forming"))
    assert not forming[0] & forming[1]


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("device", sorted(DEVICES))
def test_recipes_and_bench_files_of_the_paper_are_valid(
    model: str, device: str, tmp_path: Path
) -> None:
    study = paper_study(model, devices=[device], chips=1)
    for job in plan(study, images()).jobs:
        if isinstance(job.work, Train):
            continue
        for name in ("bench", "recipe"):
            (tmp_path / name).write_text(getattr(job.work, name, ""))
        if hasattr(job.work, "recipe"):
            load_recipe(tmp_path / "recipe")
            parse_bench_file(tomllib.loads(job.work.bench))


def test_the_paper_study_has_the_rows_that_are_asked_for() -> None:
    study = paper_study("digits", arms=["KD", "float"], chips=3)
    assert [choice.name for choice in study.arm] == ["float", "KD"], "in the order of the table"
    assert study.chips == 3
    with pytest.raises(ConfigError, match="--arms: 'nothing' is unknown; there is: float, "):
        paper_study("digits", arms=["nothing"])


@pytest.mark.parametrize("name", names(GROUP))
def test_every_arm_names_its_source_and_stands_in_the_docs(name: str) -> None:
    kind = ArmChoice(arm=name, name=name).made().__class__
    assert issubclass(kind, Arm)
    source = kind.__doc__ or ""
    assert re.search(r"(doi|arXiv) \S+", " ".join(source.split())), f"{name} names no source"
    text = (Path(__file__).parents[2] / "docs/studies.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in text


def test_every_device_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs/studies.md").read_text(encoding="utf-8")
    for name in DEVICES:
        assert f"| `{name}` |" in text


def test_trainings_differ_by_what_they_know() -> None:
    case = Case(MODELS["digits"], DEVICES["A"])
    assert case.student("teacher") == case.teacher
    aware, distilled = case.student("variation-aware"), case.student("distilled")
    assert aware.teacher is None
    assert distilled.teacher == case.teacher
    assert aware.noise == distilled.noise == case.device.noise == Noise()
    places = Places(fraction=0.1)
    known = case.student("distilled", faults="partner", words=places)
    assert (known.fault_aware, known.words) == (True, places)
    permuted = case.student("distilled", faults="permute", sigma_share=0.5)
    assert permuted.noise is not None
    assert permuted.noise.sigma == pytest.approx(0.05)
    assert permuted.noise.stuck_high_resistance == pytest.approx(0.0904 / 6)
    titles = {training.title for training in (case.teacher, aware, distilled, known)}
    assert len(titles) == 4


def test_a_share_of_the_sigma_needs_a_student() -> None:
    with pytest.raises(ConfigError, match="sigma_share: the teacher learns no errors"):
        ArmChoice(arm="one-shot", name="a", sigma_share=0.5).made()
    with pytest.raises(ConfigError, match="sigma_share: the teacher learns no errors"):
        ArmChoice(arm="random-words", name="a", sigma_share=0.5, scales=True).made()


def test_arms_of_the_paper_have_rows_of_their_own() -> None:
    assert len({arm["name"] for arm in ARMS}) == len(ARMS)
    settings = [{k: v for k, v in arm.items() if k != "name"} for arm in ARMS]
    assert all(settings.count(one) == 1 for one in settings)


def test_an_arms_job_takes_its_chip_and_networks_from_others() -> None:
    (job,) = [job for job in planned(SMALL).jobs if isinstance(job.work, RunArm)][:1]
    assert set(job.needs) == {"student.safetensors", "teacher.safetensors", "formed.zip"}
    assert set(job.inputs) == {"train.npz", "test.npz"}


def test_a_training_reads_back_what_it_was() -> None:
    training = Case(MODELS["digits"], DEVICES["A"]).student("distilled", words=Places(fraction=0.1))
    assert Training.model_validate_json(training.model_dump_json()) == training
    study = parse_study(SMALL, "here")
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_a_protocol_in_a_local_file_travels_with_the_job(tmp_path: Path) -> None:
    (tmp_path / "arms.py").write_text(
        "from rram_hil.studies.arm import Arm\n"
        "class Mine(Arm):\n"
        "    def networks(self, case): return {'student': case.teacher}\n"
        "    def steps(self, case):\n"
        "        return [case.program(), {'protocol': './parts/look.py:Look', 'name': 'look'}]\n"
    )
    study = parse_study(SMALL | {"arm": [{"name": "m", "arm": "./arms.py:Mine"}]}, "here")
    with pytest.raises(ConfigError, match=r"protocol '\./parts/look\.py:Look': there is no file"):
        plan(study, images(), tmp_path)
    (tmp_path / "parts").mkdir()
    found = []
    for content in ("one", "another"):
        (tmp_path / "parts/look.py").write_text(content)
        job = plan(study, images(), tmp_path).table["A", "m", 1]
        assert job.inputs["look.py"].content == content.encode()
        assert isinstance(job.work, RunArm)
        assert 'protocol = "./look.py:Look"' in job.work.recipe
        found.append(job.key)
    assert found[0] != found[1]


def test_every_file_of_an_arm_is_registered() -> None:
    modules = {
        f"rram_hil.studies.arms.{path.stem}"
        for path in (Path(rram_hil.__file__).parent / "studies/arms").glob("[!_]*.py")
    }
    assert modules == {entry.value.partition(":")[0] for entry in entries(GROUP)}


def test_the_example_of_a_study_teaches_one_student_for_all_arms_but_one() -> None:
    study = load_study(Path(__file__).parents[2] / "examples/study-vgg.toml")
    case = Case(study.model_used, study.devices_used[0])
    students = [choice.made().networks(case)["student"] for choice in study.arm]
    assert [s == students[0] for s in students] == [c.name != "R-V-W" for c in study.arm]
